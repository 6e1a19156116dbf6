"""Contiguous windows: documents follow each other, and every token of the stream is a target once."""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.keys import TARGETS, TOKENS, WEIGHTS
from gptjax.data.tokens import TokenSource


class ContiguousWindows:
    """Window i has the targets i·T to i·T + T - 1, and the token before each as its input; the first is a begin token.

    The last window is padded after the end of the stream, with weight 0. A BOS target also has weight 0: it is not part
    of any text, and packed windows do not score it either.
    """

    LAYOUT = "begin token, then the stream"
    FORMS = ("text", "labelled")
    LENGTHS = ("sequence_length",)
    left_out = 0

    def __init__(self, source: TokenSource, sequence_length: int):
        """Raises ConfigError if the stream has no target; a short stream is padded to one window."""
        self._first = source.own_begin  # the place of the first target
        self._num_targets = source.num_tokens - self._first
        if self._num_targets < 1:
            raise ConfigError(f"{source.folder}: the {source.split} split has no token to learn")
        self._source = source
        self._length = sequence_length

    def __len__(self) -> int:
        return -(-self._num_targets // self._length)

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens, targets int32 [B, T] and weights float32 [B, T] of some windows."""
        starts_B = index_B * self._length
        filled_B = np.minimum(self._num_targets - starts_B, self._length)
        tokens = self._source.take_runs(starts_B + (self._first - 1), filled_B + 1)
        inside_BT = np.arange(self._length + 1) <= filled_B[:, None]
        if len(tokens) == inside_BT.size:
            tokens = tokens.reshape(inside_BT.shape)
        else:
            padded = np.zeros(inside_BT.shape, np.int32)
            padded[inside_BT] = tokens
            tokens = padded
        targets, weights_BT = tokens[:, 1:], inside_BT[:, 1:].astype(np.float32)
        if self._source.own_begin:
            weights_BT[targets == self._source.begin_id] = 0
        return {TOKENS: tokens[:, :-1], TARGETS: targets, WEIGHTS: weights_BT}

    def spans(self, index: int) -> np.ndarray:
        """int64 [1, 3]: (first position in the row, place of its target in the stream, targets)."""
        start = index * self._length
        return np.array([[0, start + self._first, min(self._length, self._num_targets - start)]])
