"""Serves many requests at the same time with one model.

    engine = Engine(generator, num_slots=8)
    engine.start()                                          # compiles everything
    request = engine.submit("def main(", SamplingParams(max_tokens=64), stream=True)
    for event in request:
        print(event.text, end="")
    engine.close()

`submit`, `Request.cancel` and `close` may be called from any thread. One thread, the engine's own, uses the device and
changes requests. A text depends only on its prompt, its settings and its seed: not on the other requests.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gptjax.config import ConfigError, RunError
from gptjax.formatting import counted
from gptjax.inference import shapes
from gptjax.inference.batch import Batch
from gptjax.inference.devices import devices_of
from gptjax.inference.engine_metrics import EngineMetrics
from gptjax.inference.engine_programs import EnginePrograms
from gptjax.inference.generate import FramedPrompt, Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.prefix import PrefixCache
from gptjax.inference.prompt_reading import PromptReading, next_group, read_next
from gptjax.inference.request import Event, Request
from gptjax.inference.sampling_params import SamplingParams
from gptjax.inference.timing import program_key

TOKENS_PER_CALL = 32  # at most; a request is cancelled between calls
MOMENT = 0.05  # seconds of a call while somebody streams or waits
PAUSE = 0.1  # seconds for which prompts are read before texts go on by a token; the last piece may take longer
PAUSED_STEPS = 4  # the same in steps of the texts, if this is longer: on a slow machine, first tokens should not wait
MOST_FAILURES = 3  # steps in a row that fail before the engine is down

_log = logging.getLogger(__name__)


class QueueFull(RunError):
    """As many requests are waiting as may wait; try again later."""


class EngineDown(RunError):
    """The engine was not started, was closed, or its device failed; no request is taken."""


@dataclass
class _Model:
    """The base model or an adapter: its own parameters and its own batch."""

    generator: Generator
    batch: Batch
    id: bytes  # in digests of prompts


@dataclass(eq=False)
class _Job:
    """A request with its texts; those not yet placed wait for a row."""

    request: Request
    model: _Model
    texts: list[GrowingText]
    unplaced: list[GrowingText]
    reading: PromptReading | None = None


class Engine:
    """Generates the texts of requests.

    Each step reads pieces of prompts for a short time, if slots are free, and then generates one or more tokens in
    every row. A call reads the next piece of the request that came first, together with those of others that are as
    long. If nobody streams and nobody waits, there are many new tokens per call of the device.

    Args:
      generator: the model and its tokenizer; its parameters are used, not copied.
      num_slots: the number of texts that are generated at the same time.
      max_context: the most tokens of a prompt and its text; None: `model.max_positions`.
      max_waiting: the number of requests that may wait for a slot.
      piece: the most prompt tokens that one call reads.
      prefix_tokens: the number of tokens of prompts and texts whose keys and values are kept for later prompts with
        the same beginning; 0: none; None: four times the context.
      max_adapters: how many adapters may be loaded. Each has its own copy of the parameters, with the adapter merged
        into it, and its texts are generated in a batch of their own.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        num_slots: int = 8,
        max_context: int | None = None,
        max_waiting: int = 256,
        piece: int = 256,
        prefix_tokens: int | None = None,
        max_adapters: int = 4,
    ):
        for name, value, least in (
            ("num_slots", num_slots, 1),
            ("max_context", 2 if max_context is None else max_context, 2),
            ("max_waiting", max_waiting, 1),
            ("piece", piece, 1),
            ("prefix_tokens", prefix_tokens or 0, 0),
            ("max_adapters", max_adapters, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} = {value}: must be at least {least}")
        family, config = generator.family, generator.config
        self.generator, self.num_slots, self.max_waiting = generator, num_slots, max_waiting
        self.max_context = min(config.max_positions, max_context or config.max_positions)
        self.max_adapters = max_adapters
        self.metrics = EngineMetrics(num_slots=num_slots)
        self._sizes = shapes.engine_shapes(num_slots, self.max_context, piece, TOKENS_PER_CALL)
        num_blocks = (4 * self.max_context if prefix_tokens is None else prefix_tokens) // shapes.BLOCK
        self._prefix: PrefixCache | None = None
        if num_blocks and family.reads_in_pieces:
            self._prefix = PrefixCache(generator, num_blocks)
        self._models: dict[str | None, _Model] = {None: self._model(generator)}
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._programs: EnginePrograms | None = None
        self._closing = self._cancelling = False
        self._numbers = itertools.count()
        # In the engine's thread:
        self._reading: list[_Job] = []  # in the order in which they came
        self._seconds_per_step = 0.0  # of the latest call
        self._batches: list[Batch] = []  # those with texts
        self._failures, self._failed = 0, False  # steps in a row that failed; whether the current one did

    # --- for callers, from any thread

    def start(self, wait_for_all: bool = True) -> None:
        """Compiles all programs and starts the engine's thread; `submit` works afterwards.

        wait_for_all: False: returns when the programs of short texts are compiled. Threads compile the others, and a
          request that needs one of these earlier waits for it, together with all other requests.
        """
        programs = EnginePrograms(self.generator, self._sizes, self._prefix, self._note_compiled)
        self._programs = programs
        try:
            programs.wait(wait_for_all)
        except BaseException:
            programs.close()
            raise
        self.metrics.is_up = True
        self._thread = threading.Thread(target=self._run, name="gptjax-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        adapter: str | None = None,
        begin: bool = True,
        stream: bool = True,
        request_id: str | None = None,
        listener: Callable[[Event], None] | None = None,
    ) -> Request:
        """Queues a request and returns at once.

        Args:
          prompt: a text, or token ids, which are used unchanged.
          params: None: the defaults of `SamplingParams`.
          adapter: the name of one of `adapters`; None: the model itself.
          begin: whether a text is the beginning of a document (see `Generator.generate`).
          stream: False: nobody reads the events as they come, so that the engine may generate many tokens at a time.
          request_id: its `id`; None: one is made up.
          listener: is called with each event, in the engine's thread, instead of keeping it for an iteration. It must
            return at once and raise nothing; `lambda event: loop.call_soon_threadsafe(queue.put_nowait, event)` hands
            the events to asyncio.

        Raises:
          ConfigError: the prompt is invalid or too long, or there is no such adapter.
          QueueFull: too many requests are waiting.
          EngineDown: the engine does not run.
        """
        params = SamplingParams() if params is None else params
        model = self._models.get(adapter)
        if model is None:
            raise ConfigError(f"adapter = {adapter!r}: expected one of {', '.join(self.adapters) or '(none)'}")
        framed = model.generator.framed(prompt, begin)
        self._check(framed, params)
        request = Request(
            request_id if request_id is not None else f"request-{next(self._numbers)}",
            framed.tokens,
            params,
            seed=secrets.randbelow(2**32 - params.n) if params.seed is None else params.seed,
            adapter=adapter,
            stream=stream,
            listener=listener,
            wake=self._wake,
        )
        texts = self._texts(request, framed)
        with self._changed:
            if not self.metrics.is_up or self._closing:
                raise EngineDown("the engine does not run: it was not started, was closed, or its device failed")
            if len(self._waiting) >= self.max_waiting:
                self.metrics.requests_refused += 1
                raise QueueFull(f"{counted(len(self._waiting), 'request')} are waiting, as many as may wait")
            self._waiting.append(_Job(request, model, texts, list(texts)))
            self.metrics.requests_waiting = len(self._waiting)
            self._changed.notify()
        return request

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Takes no more requests, and ends the thread after those that were taken (drain), or after cancelling them.

        timeout: seconds after which the rest is cancelled; None: no limit.
        """
        with self._changed:
            self._closing, self._cancelling = True, not drain
            self._changed.notify()
        if self._programs is not None:
            self._programs.close()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                self._cancelling = True
                self._thread.join()
        self.metrics.is_up = False

    def add_adapter(self, name: str, generator: Generator) -> None:
        """Serves the model with an adapter merged into it under this name. Nothing is compiled for it.

        Raises:
          ConfigError: the name is taken, there are too many, or it is not an adapter of this model.
        """
        if name in self._models:
            raise ConfigError(f"adapter = {name!r}: is loaded already")
        if len(self.adapters) >= self.max_adapters:
            raise ConfigError(
                f"adapter = {name!r}: {counted(len(self.adapters), 'adapter')} are loaded, as many as may be"
            )
        same = generator.family == self.generator.family and generator.tokenizer.hash == self.generator.tokenizer.hash
        if not same or program_key(generator.params) != program_key(self.generator.params):
            raise ConfigError(f"adapter = {name!r}: its model is not the engine's, or its weights have another type")
        self._models[name] = self._model(generator)

    def remove_adapter(self, name: str) -> None:
        """Takes no more requests for this adapter; those taken are finished. Raises ConfigError if there is none."""
        if name not in self.adapters:
            raise ConfigError(f"adapter = {name!r}: expected one of {', '.join(self.adapters) or '(none)'}")
        del self._models[name]  # its jobs keep it until they have ended

    @property
    def first_context(self) -> int:
        """The most tokens of a prompt and its text for which `start` always compiles the programs."""
        return min(self._sizes.slots[0], self.max_context)

    @property
    def is_compiled(self) -> bool:
        """Whether all programs are compiled."""
        return self._programs is not None and self._programs.are_all_compiled

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the loaded adapters."""
        return tuple(name for name in self._models if name is not None)

    # --- for these

    def _note_compiled(self, seconds: float) -> None:
        _log.info("compiled for %s in %.1f s", self._sizes, seconds)

    def _model(self, generator: Generator) -> _Model:
        model_id = secrets.token_bytes(8)
        return _Model(generator, Batch(generator, self._sizes, self._prefix, model_id), model_id)

    def _check(self, framed: FramedPrompt, params: SamplingParams) -> None:
        """Raises ConfigError for what depends on the model."""
        vocab_size, family = self.generator.tokenizer.vocab_size, self.generator.family
        for name, tokens in (("stop_token_ids", params.stop_token_ids), ("logit_bias", params.logit_bias)):
            for token in tokens:
                if token >= vocab_size:
                    raise ConfigError(f"{name} = {token}: must be below {vocab_size}, the size of the vocabulary")
        length = len(framed.tokens)
        if family.continues and length > self.max_context:
            raise ConfigError(f"prompt = {counted(length, 'token')}: must be at most max_context = {self.max_context}")
        if params.prompt_logprobs is not None and not family.reads_in_pieces:
            raise ConfigError(f"prompt_logprobs = {params.prompt_logprobs}: this kind of model has none")

    def _texts(self, request: Request, framed: FramedPrompt) -> list[GrowingText]:
        generator, params = self.generator, request.params
        room = self.max_context + 1 - len(framed.tokens) if generator.family.continues else self.max_context
        limit = room if params.max_tokens is None else min(params.max_tokens, room)
        options: dict[str, Any] = dict(limit=limit, eos_id=generator.end_id, begins=framed.begins_text)
        return [GrowingText(request, index, generator.tokenizer, **options) for index in range(params.n)]

    # --- in the engine's thread

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        with devices_of(self.generator):
            while self._wait_for_work():
                self._failed = False
                try:
                    self._step()
                    if not self._failed:
                        self._failures = 0
                except Exception as error:
                    _log.exception("a step failed")
                    self._fail(error)
        self.metrics.is_up = False

    def _wait_for_work(self) -> bool:
        """Returns True when there is something to do, and False when there never will be."""
        with self._changed:
            while True:
                if self._failures >= MOST_FAILURES:
                    self.metrics.is_up = False
                    self._closing = self._cancelling = True
                if self._waiting or self._reading or self._batches:
                    return True
                if self._closing:
                    self.metrics.is_up = False
                    return False
                self._changed.wait()

    def _step(self) -> None:
        self._end_cancelled()
        self._read_prompts()
        for batch in list(self._batches):
            self._generate(batch)
        self._count()

    def _read_prompts(self) -> None:
        """Reads prompts while slots are free, for a short time, and begins their texts."""
        until = time.perf_counter() + max(PAUSE, PAUSED_STEPS * self._seconds_per_step)
        while True:
            self._take_waiting()
            self._place_read()
            group = next_group([job.reading for job in self._reading if job.reading is not None])
            if not group or time.perf_counter() >= until:
                return
            try:
                read_next(group)
            except Exception as error:
                self._fail_to_read([job for job in self._reading if job.reading in group], error)

    def _take_waiting(self) -> None:
        """Begins with the requests that have waited longest, as long as there is a free slot for each."""
        with self._changed:
            while self._waiting and self._num_unreserved > 0:
                job = self._waiting.popleft()
                job.request.timings.started = time.monotonic()
                generator = job.model.generator
                job.reading = PromptReading(generator, self._sizes, job.request, self._prefix, job.model.id)
                self._reading.append(job)
            self.metrics.requests_waiting = len(self._waiting)

    def _place_read(self) -> None:
        """Begins texts of the prompts that have been read, while slots are free."""
        for job in list(self._reading):
            if job.reading is not None and job.reading.is_done:
                try:
                    self._place(job, job.reading)
                except Exception as error:
                    self._fail_to_read([job], error)

    def _place(self, job: _Job, reading: PromptReading) -> None:
        batch = job.model.batch
        while job.unplaced and self._num_free:
            text = job.unplaced[0]
            if text is job.texts[0]:
                reading.finish()
            batch.place(reading.start(text), text)
            job.unplaced.pop(0)
            if batch.texts and batch not in self._batches:
                self._batches.append(batch)
            if text is job.texts[0] and text.finish_reason != "error":
                reading.keep()
                self._count_prompt(reading)
            self.metrics.generated(text.num_tokens)
            self._deliver(text)
        if not job.unplaced:
            self._reading.remove(job)

    def _fail_to_read(self, jobs: list[_Job], error: Exception) -> None:
        _log.exception("requests %s: their prompts could not be read", ", ".join(job.request.id for job in jobs))
        if self._prefix is not None:
            self._prefix.clear()  # its pool may have been donated to the call that failed
        for job in jobs:
            self._reading.remove(job)
            self._end(job, "error", f"{type(error).__name__}: {error}")
        self._note_failure()

    def _generate(self, batch: Batch) -> None:
        texts, began = batch.texts, time.perf_counter()
        before = sum(text.num_tokens for text in texts)
        try:
            num_steps = batch.step(self._num_steps())
        except Exception as error:
            _log.exception("generating failed")
            batch.clear()  # its state may have been donated to the call that failed
            for text in texts:
                text.end("error", f"{type(error).__name__}: {error}")
            self._note_failure()
        else:
            self._seconds_per_step = (time.perf_counter() - began) / num_steps
            self.metrics.steps += num_steps
            self.metrics.generated(sum(text.num_tokens for text in texts) - before)
        for text in texts:
            self._deliver(text)
        if not batch.texts:
            self._batches.remove(batch)

    def _num_steps(self) -> int:
        """Tokens per call of the device: many if nobody streams or waits, those of a short moment if somebody does, and
        one while prompts can be read."""
        if any(job.reading and not job.reading.is_done for job in self._reading):
            return 1
        if self._waiting and self._num_unreserved > 0:
            return 1
        is_streamed = any(text.request.stream for batch in self._batches for text in batch.texts)
        if is_streamed or self._waiting or self._reading or len(self._batches) > 1:
            return max(1, min(self._sizes.num_new, int(MOMENT / max(self._seconds_per_step, 1e-6))))
        return self._sizes.num_new

    @property
    def _num_free(self) -> int:
        return self.num_slots - sum(len(batch.texts) for batch in self._batches)

    @property
    def _num_unreserved(self) -> int:
        """Free slots that are not for texts whose prompts are being read; negative if there are more of these."""
        return self._num_free - sum(len(job.unplaced) for job in self._reading)

    def _deliver(self, text: GrowingText) -> None:
        text.deliver()
        if text.request.is_finished:
            self.metrics.finished(text.request)

    def _end_cancelled(self) -> None:
        """Ends requests that their callers have cancelled, or all if the engine is closed without draining."""
        with self._changed:
            ended = [job for job in self._waiting if job.request.cancelled or self._cancelling]
            if ended:
                self._waiting = deque(job for job in self._waiting if job not in ended)
            self.metrics.requests_waiting = len(self._waiting)
        ended += [job for job in self._reading if job.request.cancelled or self._cancelling]
        self._reading = [job for job in self._reading if job not in ended]
        is_down = self._failures >= MOST_FAILURES
        reason, error = ("error", "the engine is down: too many steps failed") if is_down else ("cancelled", None)
        for job in ended:
            self._end(job, reason, error)
        for batch in list(self._batches):
            for text in batch.texts:
                if text.request.cancelled or self._cancelling:
                    text.end(reason, error)
            for text in batch.release():
                self._deliver(text)
            if not batch.texts:
                self._batches.remove(batch)

    def _end(self, job: _Job, reason: str, error: str | None = None) -> None:
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

    def _note_failure(self) -> None:
        self._failures += 1
        self._failed = True

    def _count_prompt(self, reading: PromptReading) -> None:
        request, metrics = reading.request, self.metrics
        metrics.prompt_tokens += len(request.prompt_tokens)
        metrics.cached_tokens += request.cached_tokens
        metrics.prefix_lookups += reading.looked_up
        metrics.prefix_hits += request.cached_tokens > 0

    def _count(self) -> None:
        texts = [text for batch in self._batches for text in batch.texts]
        requests = {id(text.request) for text in texts}
        requests |= {id(job.request) for job in self._reading}
        self.metrics.slots_in_use, self.metrics.requests_running = len(texts), len(requests)
