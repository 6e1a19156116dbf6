"""Contiguous windows: documents run on into one another, every token of the stream is a target once."""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.tokens import TokenSource


class ContiguousWindows:
    """Window i reads T + 1 tokens from place i·T on: T inputs, and the same shifted by one as targets.

    The last window is padded where the stream ends, with weight 0.
    """

    def __init__(self, source: TokenSource, sequence_length: int):
        """Raises ConfigError where the stream has no pair of input and target; a short one is padded to a window."""
        if source.num_tokens < 2:
            raise ConfigError(f"{source.folder}: {source.files[0]['name']} has {source.num_tokens} tokens, too few")
        self._source = source
        self._length = sequence_length

    def __len__(self) -> int:
        return -(-(self._source.num_tokens - 1) // self._length)

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens, targets int32 [B, T] and weights float32 [B, T] of some windows."""
        starts_B = index_B * self._length
        tokens = self._source.take_spans(starts_B, self._length + 1)
        weights_BT = np.ones((len(index_B), self._length), np.float32)
        for row in np.flatnonzero(starts_B + self._length >= self._source.num_tokens):
            weights_BT[row, self._source.num_tokens - 1 - starts_B[row] :] = 0
        return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights_BT}

    def spans(self, index: int) -> np.ndarray:
        """int64 [1, 3]: (first position in the row, first place in the stream, pairs of input and target)."""
        start = index * self._length
        return np.array([[0, start, min(self._length, self._source.num_tokens - 1 - start)]])
