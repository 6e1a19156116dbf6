"""Prompts that a model answers in training: a row has the source of a pair, and its target to compare answers with."""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.keys import ANSWER, PROMPT, PROMPT_LENGTH
from gptjax.data.pairs import completion_places
from gptjax.data.tokens import TokenSource


class PromptRows:
    """Row i has the begin token, a source of at most S tokens in total, and EOS, as `PackedCompletions` has before a
    target; and the first of the target's tokens that fit beside them.

    Attributes:
      left_out: the number of pairs that are left out because the source is longer than S.
    """

    LAYOUT = "begin token and source, to be continued; the target beside it"
    FORMS = ("pairs",)
    LENGTHS = ("source_length", "sequence_length")

    def __init__(self, source: TokenSource, source_length: int, sequence_length: int):
        """Raises ConfigError if the sides have two vocabularies, no source fits, or no room is left for answers."""
        if source.has_two_vocabularies:
            raise ConfigError(
                f"data.path = {str(source.folder)!r}: sources and targets have two vocabularies, but a decoder has "
                "one: prepare the pairs without --source_tokenizer"
            )
        if not source_length < sequence_length:
            raise ConfigError(
                f"data.source_length = {source_length}: must be below data.sequence_length = {sequence_length}, the "
                "length of a prompt and its answer"
            )
        self._source, self._length, self._room = source, source_length, sequence_length - source_length
        pairs = np.arange(source.num_documents // 2)
        fits = completion_places(source, pairs)[2] + 1 <= source_length
        self._kept = np.flatnonzero(fits)
        self.left_out = len(fits) - len(self._kept)
        if not len(self._kept):
            raise ConfigError(
                f"data.source_length = {source_length}: none of the {len(fits):,} sources of {source.folder} fits"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """Returns some rows, int32: prompt [B, S], padded with 0; prompt_length [B]; and answer [B, T - S], which ends
        with EOS if it fits."""
        starts_B, lengths_B, given_B = completion_places(self._source, self._kept[index_B])
        prompt_BS = np.zeros((len(index_B), self._length), np.int32)
        prompt_BS[:, 0] = self._source.begin_id
        prompt_BS[:, 1:][np.arange(self._length - 1) < given_B[:, None]] = self._source.take_runs(starts_B, given_B)
        answers_B = np.minimum(lengths_B - given_B, self._room)
        answer_BN = np.zeros((len(index_B), self._room), np.int32)
        inside_BN = np.arange(self._room) < answers_B[:, None]
        answer_BN[inside_BN] = self._source.take_runs(starts_B + given_B, answers_B)
        answer_BN[~inside_BN] = self._source.eos_id
        return {PROMPT: prompt_BS, PROMPT_LENGTH: (given_B + 1).astype(np.int32), ANSWER: answer_BN}

    def spans(self, index: int) -> np.ndarray:
        """int64 [1, 3]: (position in the row, place in the stream, tokens) of the source."""
        starts, _, given = completion_places(self._source, self._kept[[index]])
        return np.stack([np.zeros(1, np.int64), starts, given], axis=1)
