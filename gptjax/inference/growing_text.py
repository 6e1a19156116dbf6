"""One text of a request while the engine generates it: tokens in, events out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gptjax.inference.request import Event, Request, TokenLogprob
from gptjax.inference.text import TextStream
from gptjax.tokenizer import Tokenizer

NOT_FINITE = (
    "the model's logits are not finite, so no token can be drawn: the parameters hold NaN, or activations overflow "
    "(an earlier checkpoint or --weights=float32 may help)"
)


class GrowingText:
    """Text `index` of a request.

    Args:
      limit: the number of tokens after which it ends: max_tokens, or what the context has room for.
      eos_id: the token that ends it; None: there is none.
      begins: whether it begins a document (see `TextStream`).
    """

    def __init__(
        self, request: Request, index: int, tokenizer: Tokenizer, *, limit: int, eos_id: int | None, begins: bool
    ):
        params = request.params
        self.request, self.index, self.limit = request, index, limit
        self.seed = request.seed + index
        self.drawn: list[int] = []  # all tokens so far, with the one that ended it
        self.finish_reason: str | None = None
        self.end_ids = sorted(set(params.stop_token_ids) | ({eos_id} if eos_id is not None else set()))
        if params.ignore_eos:
            self.end_ids = sorted(set(params.stop_token_ids))
        self._eos_id = eos_id
        self._stream = TextStream(tokenizer, params.stops, begins=begins, min_tokens=params.min_tokens)
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._stop_reason: str | int | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.drawn)

    def add(self, token: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> None:
        """Adds the next token; does nothing if the text has ended."""
        if self.finish_reason is not None:
            return
        if math.isnan(logprob):
            self.end("error", NOT_FINITE)
            return
        self.drawn.append(token)
        self.request.completion_tokens += 1
        if token in self.end_ids and self.num_tokens > self.request.params.min_tokens:
            self._stop_reason = None if token == self._eos_id else token
            self._score(token, logprob, top)
            self.end("stop")
            return
        self._tokens.append(token)
        self._score(token, logprob, top)
        if self._stream.push(token):
            self._stop_reason = self._stream.stopped_by
            self.end("stop")
        elif self.num_tokens >= self.limit:
            self.end("length")

    def _score(self, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> None:
        if self.request.params.logprobs is not None:
            self._logprobs.append(TokenLogprob(token, logprob, tuple(top)))

    def end(self, reason: str, error: str | None = None) -> None:
        """Ends the text for one of FINISH_REASONS, unless it has ended."""
        if self.finish_reason is None:
            self.finish_reason = reason
            self.request.error = error or self.request.error
            self._stream.close()

    def deliver(self) -> None:
        """Hands what is new to the request; call it once after the text has ended."""
        text = self._stream.take()
        if not (text or self._tokens or self.finish_reason):
            return
        logprobs = None if self.request.params.logprobs is None else tuple(self._logprobs)
        event = Event(self.index, text, tuple(self._tokens), logprobs, self.finish_reason, self._stop_reason)
        self._tokens, self._logprobs = [], []
        self.request.deliver(event)
