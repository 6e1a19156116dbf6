"""The steps of the engine's thread: it reads prompts, generates tokens, and ends what is cancelled or fails."""

from __future__ import annotations

import logging
import time

from gptjax.inference.batch import Batch
from gptjax.inference.devices import devices_of
from gptjax.inference.engine_metrics import EngineMetrics
from gptjax.inference.generate import Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.job import Job
from gptjax.inference.prefix import PrefixCache
from gptjax.inference.prompt_reading import PromptReading, next_group, read_next
from gptjax.inference.shapes import EngineShapes
from gptjax.inference.waiting import WaitingJobs

MOMENT = 0.05  # seconds of a call while somebody streams or waits
PAUSE = 0.1  # seconds for which prompts are read before texts go on by a token; the last piece may take longer
PAUSED_STEPS = 4  # the same in steps of the texts, if this is longer: on a slow machine, first tokens should not wait
MOST_FAILURES = 3  # steps in a row in which a call of the device fails before the engine is down

_log = logging.getLogger(__name__)


class EngineSteps:
    """What the engine does, a step at a time. Only the engine's thread may use it.

    Each step reads pieces of prompts for a short time, if slots are free, and then generates one or more tokens in
    every row. A call reads the next piece of the request that came first, together with those of others that are as
    long. If nobody streams and nobody waits, there are many new tokens per call of the device.

    Args:
      generator: whose devices are used; every job has its own model.
      num_slots, prefix: as for `Engine`.
      waiting: where jobs are taken from.
      metrics: are updated.
    """

    def __init__(
        self,
        generator: Generator,
        num_slots: int,
        sizes: EngineShapes,
        prefix: PrefixCache | None,
        waiting: WaitingJobs,
        metrics: EngineMetrics,
    ):
        self._generator, self._num_slots, self._sizes, self._prefix = generator, num_slots, sizes, prefix
        self._waiting, self._metrics = waiting, metrics
        self._reading: list[Job] = []  # in the order in which they came
        self._seconds_per_step = 0.0  # of the latest call
        self._batches: list[Batch] = []  # those with texts
        self._failures, self._failed = 0, False  # steps in a row that failed; whether the current one did

    def run(self) -> None:
        """Takes steps until no request will ever come again."""
        with devices_of(self._generator):
            while self._waiting.wait(lambda: bool(self._reading or self._batches)):
                self._failed = False
                try:
                    self._step()
                    if not self._failed:
                        self._failures = 0
                except Exception as error:
                    _log.exception("a step failed")
                    self._fail(error)
                if self._is_down:
                    self._waiting.fail()
        self._metrics.is_up = False

    def _step(self) -> None:
        self._end_cancelled()
        self._read_prompts()
        for batch in list(self._batches):
            self._generate(batch)
        self._count()

    def _read_prompts(self) -> None:
        """Reads prompts while slots are free, at least one piece and for a short time, and begins their texts."""
        until, has_read = time.perf_counter() + max(PAUSE, PAUSED_STEPS * self._seconds_per_step), False
        while True:
            self._take_waiting()
            self._place_read()
            group = next_group([job.reading for job in self._reading if job.reading is not None])
            if not group or (has_read and time.perf_counter() >= until):
                return
            has_read = True
            try:
                read_next(group)
            except Exception as error:
                self._fail_to_read([job for job in self._reading if job.reading in group], error)

    def _take_waiting(self) -> None:
        """Begins with the requests that have waited longest, as long as there is a free slot for each."""
        while self._num_unreserved > 0 and (job := self._waiting.take()) is not None:
            job.request.timings.started = time.monotonic()
            generator = job.model.generator
            self._reading.append(job)
            try:
                job.reading = PromptReading(generator, self._sizes, job.request, self._prefix, job.model.id)
            except Exception as error:
                self._end_alone(job, error)

    def _place_read(self) -> None:
        """Begins texts of the prompts that have been read, while slots are free."""
        for job in list(self._reading):
            if job.reading is not None and job.reading.is_done:
                try:
                    self._place(job, job.reading)
                except Exception as error:
                    self._fail_to_read([job], error)

    def _place(self, job: Job, reading: PromptReading) -> None:
        batch = job.model.batch
        while job.unplaced and self._num_free:
            text = job.unplaced[0]
            if text is job.texts[0]:
                reading.finish()
            try:
                beginning = reading.beginning(text)
            except Exception as error:
                return self._end_alone(job, error)
            batch.place(reading.start(beginning), text)
            job.unplaced.pop(0)
            if batch.texts and batch not in self._batches:
                self._batches.append(batch)
            if text is job.texts[0] and text.finish_reason != "error":
                reading.keep()
                self._count_prompt(reading)
            self._metrics.generated(text.num_tokens)
            self._deliver(text)
        if not job.unplaced:
            self._reading.remove(job)

    def _fail_to_read(self, jobs: list[Job], error: Exception) -> None:
        _log.exception("requests %s: their prompts could not be read", ", ".join(job.request.id for job in jobs))
        if self._prefix is not None:
            self._prefix.clear()  # its pool may have been donated to the call that failed
        for job in jobs:
            self._reading.remove(job)
            self._end(job, "error", f"{type(error).__name__}: {error}")
        self._note_failure()

    def _end_alone(self, job: Job, error: Exception) -> None:
        """Ends a request that could not be prepared on the host. No call of the device has failed, so the engine is
        well, and other requests go on."""
        _log.error("request %s: it could not be prepared", job.request.id, exc_info=error)
        self._reading.remove(job)
        self._end(job, "error", f"{type(error).__name__}: {error}")

    def _generate(self, batch: Batch) -> None:
        texts, began = batch.texts, time.perf_counter()
        before = sum(text.num_tokens for text in texts)
        try:
            done = batch.step(self._num_steps())
        except Exception as error:
            _log.exception("generating failed")
            batch.clear()  # its state may have been donated to the call that failed
            for text in texts:
                text.end("error", f"{type(error).__name__}: {error}")
            self._note_failure()
        else:
            self._seconds_per_step = (time.perf_counter() - began) / done.steps
            self._metrics.steps += done.steps
            self._metrics.proposed_tokens += done.proposed
            self._metrics.accepted_tokens += done.accepted
            self._metrics.generated(sum(text.num_tokens for text in texts) - before)
        for text in texts:
            self._deliver(text)
        if not batch.texts:
            self._batches.remove(batch)

    def _num_steps(self) -> int:
        """Steps per call of the device: many if nobody streams or waits, those of a short moment if somebody does, and
        one while prompts can be read."""
        if any(job.reading and not job.reading.is_done for job in self._reading):
            return 1
        if self._waiting and self._num_unreserved > 0:
            return 1
        is_streamed = any(text.request.stream for batch in self._batches for text in batch.texts)
        if is_streamed or self._waiting or self._reading or len(self._batches) > 1:
            return max(1, min(self._sizes.num_steps, int(MOMENT / max(self._seconds_per_step, 1e-6))))
        return self._sizes.num_steps

    @property
    def _num_free(self) -> int:
        return self._num_slots - sum(len(batch.texts) for batch in self._batches)

    @property
    def _num_unreserved(self) -> int:
        """Free slots that are not for texts whose prompts are being read; negative if there are more of these."""
        return self._num_free - sum(len(job.unplaced) for job in self._reading)

    def _deliver(self, text: GrowingText) -> None:
        text.deliver()
        if text.request.is_finished:
            self._metrics.finished(text.request)

    def _end_cancelled(self) -> None:
        """Ends requests that their callers have cancelled, or all if the engine is closed without draining."""
        ended = self._waiting.take_cancelled()
        all_end = self._waiting.is_cancelling
        ended += [job for job in self._reading if job.request.cancelled or all_end]
        self._reading = [job for job in self._reading if job not in ended]
        reason, error = "cancelled", None
        if self._is_down:
            reason, error = "error", "the engine is down: too many steps failed"
        for job in ended:
            self._end(job, reason, error)
        for batch in list(self._batches):
            for text in batch.texts:
                if text.request.cancelled or all_end:
                    text.end(reason, error)
            for text in batch.release():
                self._deliver(text)
            if not batch.texts:
                self._batches.remove(batch)

    def _end(self, job: Job, reason: str, error: str | None = None) -> None:
        """Ends the texts of a request that have no row, and cancels those that have one."""
        for text in job.unplaced:
            text.end(reason, error)
            self._deliver(text)
        if len(job.unplaced) < len(job.texts):
            job.request.cancelled = True

    def _fail(self, error: Exception) -> None:
        """Ends everything that has begun, after an error in the engine itself, so that nothing waits for ever."""
        for job in self._reading:
            self._end(job, "error", repr(error))
        self._reading = []
        for batch in self._batches:
            texts = batch.texts
            batch.clear()
            for text in texts:
                text.end("error", repr(error))
                self._deliver(text)
        self._batches = []
        self._note_failure()

    @property
    def _is_down(self) -> bool:
        return self._failures >= MOST_FAILURES

    def _note_failure(self) -> None:
        self._failures += 1
        self._failed = True

    def _count_prompt(self, reading: PromptReading) -> None:
        request, metrics = reading.request, self._metrics
        metrics.prompt_tokens += len(request.prompt_tokens)
        metrics.cached_tokens += request.cached_tokens
        metrics.prefix_lookups += reading.looked_up
        metrics.prefix_hits += request.cached_tokens > 0

    def _count(self) -> None:
        texts = [text for batch in self._batches for text in batch.texts]
        requests = {id(text.request) for text in texts}
        requests |= {id(job.request) for job in self._reading}
        self._metrics.slots_in_use, self._metrics.requests_running = len(texts), len(requests)
