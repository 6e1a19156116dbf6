"""Serves many requests at the same time with one model.

    engine = Engine(generator, num_slots=8)
    engine.start()                                          # compiles everything, then waits for requests
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
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gptjax.config import ConfigError, RunError
from gptjax.formatting import counted
from gptjax.inference import shapes
from gptjax.inference.decode import decode, prefill
from gptjax.inference.engine_metrics import EngineMetrics
from gptjax.inference.generate import FramedPrompt, Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.request import Event, Request
from gptjax.inference.sampling import make_sampling
from gptjax.inference.sampling_params import SamplingParams

_log = logging.getLogger(__name__)


class QueueFull(RunError):
    """As many requests are waiting as may wait; try again later."""


class EngineDown(RunError):
    """The engine was not started, was closed, or its device failed; no request is taken."""


class Engine:
    """Generates the texts of requests.

    Args:
      generator: the model and its tokenizer; its parameters are used, not copied.
      max_waiting: the number of requests that may wait for a slot.
    """

    def __init__(self, generator: Generator, *, max_waiting: int = 256):
        self.generator, self.max_waiting = generator, max_waiting
        self.metrics = EngineMetrics(num_slots=1)
        self._waiting: deque[tuple[Request, FramedPrompt]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._numbers = itertools.count()

    # --- for callers, from any thread

    def start(self) -> None:
        """Compiles all programs and starts the engine's thread; `submit` works afterwards."""
        self.warm_up()
        self._thread = threading.Thread(target=self._run, name="gptjax-engine", daemon=True)
        self.metrics.is_up = True
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
          adapter: the name of an adapter of `adapters`; None: the model itself.
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
        if adapter is not None and adapter not in self.adapters:
            raise ConfigError(f"adapter = {adapter!r}: expected one of {', '.join(self.adapters) or '(none)'}")
        framed = self.generator.framed(prompt, begin)
        vocab_size = self.generator.tokenizer.vocab_size
        for token in (*params.stop_token_ids, *params.logit_bias):
            if token >= vocab_size:
                raise ConfigError(f"token id = {token}: must be below {vocab_size}, the size of the vocabulary")
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
        with self._changed:
            if not self.metrics.is_up or self._closing:
                raise EngineDown("the engine does not run")
            if len(self._waiting) >= self.max_waiting:
                self.metrics.requests_refused += 1
                raise QueueFull(f"{counted(len(self._waiting), 'request')} are waiting, as many as may wait")
            self._waiting.append((request, framed))
            self.metrics.requests_waiting = len(self._waiting)
            self._changed.notify()
        return request

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Takes no more requests, and ends the thread after those that were taken (drain), or after cancelling them.

        timeout: seconds after which the rest is cancelled; None: no limit.
        """
        with self._changed:
            self._closing = True
            if not drain:
                self._cancel_all()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                with self._changed:
                    self._cancel_all()
                self._thread.join()
        self.metrics.is_up = False

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the loaded adapters."""
        return ()

    def warm_up(self) -> None:
        """Compiles all programs, so that no request waits for one."""

    # --- in the engine's thread

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _cancel_all(self) -> None:
        for request, _ in self._waiting:
            request.cancelled = True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    self.metrics.is_up = False
                    return
                request, framed = self._waiting.popleft()
                self.metrics.requests_waiting = len(self._waiting)
            texts = self._texts(request, framed)
            try:
                for text in texts:
                    self._generate(request, framed, text)
            except Exception as error:
                _log.exception("request %s failed", request.id)
                for text in texts:
                    if text.finish_reason is None:
                        text.end("error", f"{type(error).__name__}: {error}")
                        text.deliver()
            self.metrics.finished(request)

    def _texts(self, request: Request, framed: FramedPrompt) -> list[GrowingText]:
        generator, params = self.generator, request.params
        room = generator.family.room(len(framed.tokens))
        limit = room if params.max_tokens is None else min(params.max_tokens, room)
        options: dict[str, Any] = dict(limit=limit, eos_id=generator.end_id, begins=framed.begins_text)
        return [GrowingText(request, index, generator.tokenizer, **options) for index in range(params.n)]

    def _generate(self, request: Request, framed: FramedPrompt, text: GrowingText) -> None:
        generator, params = self.generator, request.params
        T = shapes.prompt_slots(len(framed.tokens), generator.config.max_positions)
        num_new = shapes.bucketed(max(text.limit, 1))
        state = prefill(
            generator.family,
            generator.params,
            np.pad(np.array([framed.tokens], np.int32), ((0, 0), (0, T - len(framed.tokens)))),
            np.array([len(framed.tokens)], np.int32),
            np.array([text.limit], np.int32),
            make_sampling(
                [text.seed],
                num_tokens=generator.tokenizer.vocab_size,
                temperature=params.temperature,
                top_k=max(params.top_k, 0),
                top_p=params.top_p,
                min_p=params.min_p,
                repetition_penalty=params.repetition_penalty,
            ),
            np.int32(-1),
            room=num_new,
            num_new=num_new,
            piece=shapes.PIECE,
        )
        while text.finish_reason is None:
            if request.cancelled:
                text.end("cancelled")
            elif text.limit == 0:
                text.end("length")
            else:
                tokens_G, logprobs_G = np.asarray(state.tokens_BG[0]), np.asarray(state.logprobs_BG[0])
                for place in range(text.num_tokens, int(state.length_B[0])):
                    text.add(int(tokens_G[place]), float(logprobs_G[place]))
            text.deliver()
            if text.finish_reason is None:
                stop_B = np.array([False])
                state = decode(generator.family, generator.params, state, np.int32(1), stop_B)
