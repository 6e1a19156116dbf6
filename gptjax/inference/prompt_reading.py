"""Reads the prompts of requests, a piece at a time, so that the texts of other requests go on between the pieces.

Short pieces of several prompts are read in one call, since the matrices are multiplied faster for many tokens at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from gptjax.inference import shapes
from gptjax.inference.decode import DecodeState, empty_cache, prefill, read, score, start
from gptjax.inference.devices import committed
from gptjax.inference.generate import Generator
from gptjax.inference.growing_text import GrowingText
from gptjax.inference.prefix import PrefixCache
from gptjax.inference.request import Request, TokenLogprob
from gptjax.inference.request_sampling import make_request_sampling
from gptjax.inference.sampling import make_sampling
from gptjax.parallel.distributed import fetch


class PromptReading:
    """A prompt that is read, and then the rows of its texts.

    Args:
      generator: the model.
      prefix: the kept blocks of other prompts; None: none are kept, or the family cannot read in pieces.
      model_id: a part of the digests of blocks; models with different keys and values have different ones.
    """

    def __init__(
        self,
        generator: Generator,
        sizes: shapes.EngineShapes,
        request: Request,
        prefix: PrefixCache | None,
        model_id: bytes,
    ):
        self.generator, self._sizes, self.request = generator, sizes, request
        self._tokens = request.prompt_tokens
        self._slots = shapes.smallest(sizes.slots, len(self._tokens)) if generator.family.continues else sizes.slots[0]
        self._prefix, self._chain = prefix, [] if prefix is None else prefix.chain(model_id, self._tokens)
        self._cache: Any = None
        self._last_BD: Any = None
        self._num_read = 0
        self._known = 0
        self._logprobs: list[TokenLogprob | None] = [None]

    @property
    def is_done(self) -> bool:
        """Whether the whole prompt has been read. A family that cannot read in pieces reads it for each text."""
        return self._num_read == len(self._tokens) or not self.generator.family.reads_in_pieces

    @property
    def looked_up(self) -> bool:
        """Whether kept blocks may be used."""
        return bool(self._chain) and self.request.params.prompt_logprobs is None

    @property
    def piece(self) -> int:
        """The length of the program that reads the next piece."""
        read = self._num_read if self._cache is not None else self._num_known() * shapes.BLOCK
        return self._sizes.piece_for(len(self._tokens) - read, self._slots - read)

    def keep(self) -> None:
        """Keeps the prompt's blocks for later prompts. To be called after a text has begun with finite logits."""
        if self._prefix is not None and len(self._chain) > self._known:
            self._prefix.keep(self._chain, self._cache)

    def beginning(self, text: GrowingText) -> tuple[Any, tuple, dict[str, Any]]:
        """The call that `start` makes for a text: a function with its arguments. It is made on the host alone."""
        return starting(self.generator, self._sizes, text, self._last_BD, self._slots)

    def start(self, beginning: tuple[Any, tuple, dict[str, Any]]) -> DecodeState:
        """The row of a text, with its first token."""
        function, arguments, options = beginning
        row = function(*arguments, **options)
        return committed(self.generator, row) if row.cache is not None else replace(row, cache=self._cache)

    def finish(self) -> None:
        """Hands the log-probabilities of the prompt to the request, if it asks for them."""
        if self.request.params.prompt_logprobs is not None:
            self.request.prompt_logprobs = self._logprobs

    def _begin(self) -> None:
        if self._cache is not None:
            return
        self._known = self._num_known()
        if self._known and self._prefix is not None:
            self._cache = self._prefix.load(self._chain[: self._known], self._slots)
            self._num_read = self.request.cached_tokens = self._known * shapes.BLOCK
        else:
            self._cache = unread(self.generator, self._slots)

    def _num_known(self) -> int:
        """The number of kept blocks that it may use."""
        return self._prefix.num_known(self._chain) if self.looked_up and self._prefix is not None else 0

    def _waits_for(self, others: Iterable[PromptReading]) -> bool:
        """Whether another prompt that is being read has the next block of this one, which then need not be read."""
        if self._cache is not None or not self.looked_up or (known := self._num_known()) == len(self._chain):
            return False
        return any(self._chain[known] in other._chain for other in others)

    def _score(self, x_1TD: Any, length: int) -> None:
        """Adds the log-probabilities of the tokens that follow these."""
        generator, T = self.generator, x_1TD.shape[1]
        following = self._tokens[self._num_read + 1 : self._num_read + 1 + length]
        next_1T = np.zeros((1, T), np.int32)
        next_1T[0, : len(following)] = following
        scored = fetch(score(generator.family, generator.params, x_1TD, next_1T))
        logprobs_T, top_TA, top_logprobs_TA = (x[0].tolist() for x in scored)
        num_top = self.request.params.prompt_logprobs
        for place, token in enumerate(following):
            top = tuple(zip(top_TA[place][:num_top], top_logprobs_TA[place][:num_top]))
            self._logprobs.append(TokenLogprob(token, logprobs_T[place], top))


def next_group(readings: Sequence[PromptReading]) -> list[PromptReading]:
    """Those of which one call should read the next pieces: the first that is not done, and, if there are enough, others
    of the same model whose next pieces are as long. Empty if all are done."""
    unread = [reading for reading in readings if not reading.is_done]
    if not unread:
        return []
    first = unread[0]
    group, room = [first], first._sizes.together(first.piece)
    for reading in unread[1:]:
        if len(group) == room:
            break
        is_alike = reading.generator is first.generator and reading._slots == first._slots
        if is_alike and reading.piece == first.piece:
            begun = [other for other in unread if other._cache is not None and other is not reading]
            if not reading._waits_for([*group, *begun]):
                group.append(reading)
    return group if 2 * len(group) > room else group[:1]  # the call costs as much for prompts that are missing


def read_next(group: Sequence[PromptReading]) -> None:
    """Reads the next pieces of a group of `next_group`, and waits until they are read."""
    first = group[0]
    generator, T = first.generator, first.piece
    R = 1 if len(group) == 1 else first._sizes.together(T)
    tokens_RT, num_new_R = np.zeros((R, T), np.int32), np.ones(R, np.int32)
    for row, reading in enumerate(group):
        reading._begin()
        piece = reading._tokens[reading._num_read : reading._num_read + T]
        tokens_RT[row, : len(piece)], num_new_R[row] = piece, len(piece)
    caches = [reading._cache for reading in group]  # they are donated
    caches += [unread(generator, first._slots) for _ in range(R - len(group))]
    made = read(generator.family, generator.params, tuple(caches), tokens_RT, num_new_R)
    for reading, cache, x_1TD, last_1D, length in zip(group, *made, num_new_R.tolist()):
        reading._cache, reading._last_BD = cache, last_1D
        if reading.request.params.prompt_logprobs is not None:
            reading._score(x_1TD, length)
        reading._num_read += length
    jax.block_until_ready(first._last_BD)


def unread(generator: Generator, slots: int) -> Any:
    """The cache of a row that has read nothing."""
    return committed(generator, empty_cache(generator.family, slots=slots))


def starting(
    generator: Generator, sizes: shapes.EngineShapes, text: GrowingText, last_1D: Any, slots: int
) -> tuple[Any, tuple, dict[str, Any]]:
    """The function that draws a text's first token, and its arguments; it returns a row, whose cache may be missing.

    A family that cannot read in pieces reads the prompt in this call.

    Args:
      last_1D: from the last `read` of the prompt.
      slots: of the row.
    """
    family, prompt = generator.family, text.request.prompt_tokens
    T = sizes.slots[-1] if family.reads_in_pieces else generator.config[family.prompt_field] + 1
    prompt_1T = np.zeros((1, T), np.int32)
    prompt_1T[0, : len(prompt)] = prompt
    inputs = (
        prompt_1T,
        np.array([len(prompt)], np.int32),
        np.array([text.limit], np.int32),
        sampling_of(generator, text),
        np.int32(-1),  # the end tokens are in the sampling
    )
    if family.reads_in_pieces:
        options = dict(num_new=sizes.num_new, proposes=sizes.num_proposed > 0)
        return start, (family, generator.params, last_1D, *inputs), options
    return prefill, (family, generator.params, *inputs), dict(room=slots - 1, num_new=sizes.num_new, piece=T)


def sampling_of(generator: Generator, text: GrowingText) -> Any:
    """The `Sampling` of the row of a text."""
    params = text.request.params
    sampling = make_sampling(
        [text.seed],
        num_tokens=generator.tokenizer.vocab_size,
        temperature=params.temperature,
        top_k=max(params.top_k, 0),
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
    )
    requested = make_request_sampling(params, text.end_ids)
    return sampling.replace(requested=requested)  # type: ignore[attr-defined]
