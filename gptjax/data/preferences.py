"""Preferences: a row has a prompt with the chosen answer, and the same prompt with the rejected one."""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.keys import REJECTED, TARGETS, TOKENS, WEIGHTS
from gptjax.data.pairs import completion_places, completions
from gptjax.data.tokens import TokenSource


class PreferenceRows:
    """Row i has two texts of at most T tokens: begin token, prompt, EOS, answer, EOS. Only answers have a weight.

    The layout of a text is that of `PackedCompletions`, so that a model can learn to complete pairs first.

    Attributes:
      left_out: the number of preferences that are left out because one of their texts is longer than a row.
    """

    LAYOUT = "begin token, prompt, answer; the chosen and the rejected answer beside each other"
    FORMS = ("preferences",)
    LENGTHS = ("sequence_length",)

    def __init__(self, source: TokenSource, sequence_length: int):
        """Raises ConfigError if no preference fits into a row."""
        self._source, self._length = source, sequence_length
        pairs = np.arange((len(source.document_offsets()) - 1) // 2)
        _, lengths, _ = completion_places(source, pairs)
        fits = lengths.reshape(-1, 2).max(axis=1) <= sequence_length
        self._kept = np.flatnonzero(fits)
        self.left_out = len(fits) - len(self._kept)
        if not len(self._kept):
            raise ConfigError(
                f"data.sequence_length = {sequence_length}: none of the {len(fits):,} preferences of {source.folder} "
                "fits into a row"
            )

    def __len__(self) -> int:
        return len(self._kept)

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens, targets int32 [B, T] and weights float32 [B, T] of the chosen answers; those of the rejected ones
        have the prefix REJECTED."""
        once_B = np.ones(len(index_B), np.int64)
        batch: dict[str, np.ndarray] = {}
        for answer, prefix in enumerate(("", REJECTED)):
            rows = completions(self._source, once_B, 2 * self._kept[index_B] + answer, self._length)
            batch |= {f"{prefix}{name}": rows[name] for name in (TOKENS, TARGETS, WEIGHTS)}
        return batch

    def spans(self, index: int) -> np.ndarray:
        """int64 [1, 3]: (position in the row, place in the stream, tokens) of the prompt and the chosen answer."""
        starts, lengths, _ = completion_places(self._source, 2 * self._kept[[index]])
        return np.stack([np.zeros(1, np.int64), starts, lengths], axis=1)
