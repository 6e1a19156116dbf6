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
from collections.abc import Callable, Sequence
from typing import Any

from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.inference import shapes
from gptjax.inference.batch import Batch
from gptjax.inference.engine_metrics import EngineMetrics
from gptjax.inference.engine_programs import EnginePrograms
from gptjax.inference.engine_steps import EngineSteps
from gptjax.inference.generate import Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.job import Job, ServedModel
from gptjax.inference.prefix import PrefixCache
from gptjax.inference.prompt_framing import FramedPrompt
from gptjax.inference.request import Event, Request
from gptjax.inference.sampling_params import SamplingParams
from gptjax.inference.timing import program_key
from gptjax.inference.waiting import WaitingJobs

STEPS_PER_CALL = 32  # at most; a request is cancelled between calls

_log = logging.getLogger(__name__)


class Engine:
    """Takes requests and generates their texts in a thread of its own (engine_steps.py).

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
      num_speculative_tokens: how many tokens each step proposes for each text, copied from its prompt and itself. Texts
        stay the same; those that repeat much are generated faster, others more slowly (see `speculation`).
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
        num_speculative_tokens: int = 0,
    ):
        for name, value, least in (
            ("num_slots", num_slots, 1),
            ("max_context", 2 if max_context is None else max_context, 2),
            ("max_waiting", max_waiting, 1),
            ("piece", piece, 1),
            ("prefix_tokens", prefix_tokens or 0, 0),
            ("max_adapters", max_adapters, 0),
            ("num_speculative_tokens", num_speculative_tokens, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} = {value}: must be at least {least}")
        family, config = generator.family, generator.config
        if num_speculative_tokens and not family.reads_in_pieces:
            raise ConfigError(
                f"num_speculative_tokens = {num_speculative_tokens}: must be 0 for this kind of model, which reads "
                "one token of a text at a time"
            )
        self.generator, self.num_slots, self.max_waiting = generator, num_slots, max_waiting
        self.max_context = min(config.max_positions, max_context or config.max_positions)
        self.max_adapters = max_adapters
        self.metrics = EngineMetrics(num_slots=num_slots)
        self._sizes = shapes.engine_shapes(num_slots, self.max_context, piece, STEPS_PER_CALL, num_speculative_tokens)
        num_blocks = (4 * self.max_context if prefix_tokens is None else prefix_tokens) // shapes.BLOCK
        self._prefix: PrefixCache | None = None
        if num_blocks and family.reads_in_pieces:
            self._prefix = PrefixCache(generator, num_blocks)
        self._models: dict[str | None, ServedModel] = {None: self._model(generator)}
        self._waiting = WaitingJobs(max_waiting, self.metrics)
        self._steps = EngineSteps(generator, num_slots, self._sizes, self._prefix, self._waiting, self.metrics)
        self._thread: threading.Thread | None = None
        self._programs: EnginePrograms | None = None
        self._numbers = itertools.count()

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
        self._thread = threading.Thread(target=self._steps.run, name="gptjax-engine", daemon=True)
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
            wake=self._waiting.wake,
        )
        texts = self._texts(request, framed)
        self._waiting.put(Job(request, model, texts, list(texts)))
        return request

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Takes no more requests, and ends the thread after those that were taken (drain), or after cancelling them.

        timeout: seconds after which the rest is cancelled; None: no limit.
        """
        self._waiting.close(cancel=not drain)
        if self._programs is not None:
            self._programs.close()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                self._waiting.close(cancel=True)
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
        return min(self._sizes.slots[0] - self._sizes.num_proposed, self.max_context)

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

    def _model(self, generator: Generator) -> ServedModel:
        model_id = secrets.token_bytes(8)
        return ServedModel(generator, Batch(generator, self._sizes, self._prefix, model_id), model_id)

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
