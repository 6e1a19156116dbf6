"""A request to the engine, as its caller sees it: events while the texts are generated, then the whole result.

    request = engine.submit("def main(", SamplingParams(max_tokens=64))
    for event in request:                 # from any thread
        print(event.text, end="")
    print(request.usage, request.timings)

The engine's thread is the only one that changes a request; `cancel` may be called from any thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gptjax.inference.sampling_params import SamplingParams

_log = logging.getLogger(__name__)

# Why a text ended. `stop`: the end-of-text token, a stop token or a stop string. `length`: max_tokens, or the end of
# the context. `cancelled`: by the caller, or because the engine was closed. `error`: see `Request.error`.
FINISH_REASONS = ("stop", "length", "cancelled", "error")


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log-probability under the model's own distribution, before temperature, penalties and truncation."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most probable tokens and their log-probabilities, best first


@dataclass(frozen=True)
class Event:
    """What is new in one text of a request.

    The `text` of all events of an index, joined, is that text. A character whose bytes are spread over several tokens,
    and text that may be the beginning of a stop string, come with a later event than their tokens.
    """

    index: int  # which of the n texts
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None  # one per token, also of one that ended the text, if asked for
    finish_reason: str | None = None  # the last event of an index has one of FINISH_REASONS
    stop_reason: str | int | None = None  # the stop string or stop token that ended it


@dataclass
class Output:
    """One text of a request so far."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)  # without the token that ended it; with those of a stop string
    logprobs: list[TokenLogprob] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


@dataclass(frozen=True)
class Usage:
    """prompt_tokens counts the begin token, completion_tokens the token that ended each text."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # of the prompt, whose keys and values an earlier request had left

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class Timings:
    """Seconds of `time.monotonic` at which things happened; None: not yet."""

    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None  # its prompt began to be read
    first_token: float | None = None
    finished: float | None = None

    @property
    def queued(self) -> float | None:
        """Seconds in the waiting queue."""
        return None if self.started is None else self.started - self.submitted

    @property
    def time_to_first_token(self) -> float | None:
        return None if self.first_token is None else self.first_token - self.submitted

    @property
    def total(self) -> float | None:
        return None if self.finished is None else self.finished - self.submitted


class Request:
    """A request in progress. Iterate it once, for its events; `result` waits for the end.

    Attributes:
      id: given to `submit`, or made up.
      prompt_tokens: what the model reads, with the begin token.
      prompt_logprobs: after the first event, one per token of the prompt if the request asks for them; the first is
        None.
      outputs: the n texts so far.
      adapter: the name of the adapter, or None.
      seed: of the first text.
      error: what happened, if a text's finish_reason is 'error'.
    """

    def __init__(
        self,
        request_id: str,
        prompt_tokens: list[int],
        params: SamplingParams,
        *,
        seed: int,
        adapter: str | None = None,
        stream: bool = True,
        listener: Callable[[Event], None] | None = None,
        wake: Callable[[], None] = lambda: None,
    ):
        self.id, self.prompt_tokens, self.params = request_id, prompt_tokens, params
        self.seed, self.adapter, self.stream = seed, adapter, stream
        self.outputs = [Output(i, logprobs=None if params.logprobs is None else []) for i in range(params.n)]
        self.prompt_logprobs: list[TokenLogprob | None] | None = None
        self.cached_tokens = self.completion_tokens = 0
        self.timings = Timings()
        self.error: str | None = None
        self.cancelled = False
        self._listener, self._wake = listener, wake
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._finished = threading.Event()

    # --- for the caller

    def __iter__(self) -> Iterator[Event]:
        """Yields events as they come, until every text has ended. With a listener, there are none here."""
        while (event := self._events.get()) is not None:
            yield event

    def result(self, timeout: float | None = None) -> Request:
        """Waits until every text has ended, and returns the request. Raises TimeoutError after `timeout` seconds."""
        if not self._finished.wait(timeout):
            raise TimeoutError(f"request {self.id}: not finished after {timeout} seconds")
        return self

    def cancel(self) -> None:
        """Ends the request at the engine's next step, which frees its slots. Does nothing if it has ended."""
        self.cancelled = True
        self._wake()

    @property
    def is_finished(self) -> bool:
        return self._finished.is_set()

    @property
    def finish_reason(self) -> str | None:
        """Of the first text."""
        return self.outputs[0].finish_reason

    @property
    def text(self) -> str:
        """The first text."""
        return self.outputs[0].text

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt_tokens), self.completion_tokens, self.cached_tokens)

    # --- for the engine's thread

    def deliver(self, event: Event) -> None:
        """Adds an event to its text, and hands it to the caller."""
        output, now = self.outputs[event.index], time.monotonic()
        output.text += event.text
        output.token_ids.extend(event.token_ids)
        if output.logprobs is not None and event.logprobs:
            output.logprobs.extend(event.logprobs)
        output.finish_reason, output.stop_reason = event.finish_reason, event.stop_reason
        if self.timings.first_token is None and event.token_ids:
            self.timings.first_token = now
        is_last = all(output.finish_reason is not None for output in self.outputs)
        if is_last:
            self.timings.finished = now
            self._finished.set()
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception:  # for example, its event loop is closed: nobody is there any more
                _log.exception("request %s: its listener failed", self.id)
                self.cancelled = True
        else:
            self._events.put(event)
            if is_last:
                self._events.put(None)
