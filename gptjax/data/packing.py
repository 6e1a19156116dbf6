"""Packed windows: a row has several whole documents, which do not see each other.

A document starts after a begin token, as in contiguous windows. Each of its tokens, including EOS, is a target once and
takes one position. A document with more than T targets is cut into pieces of T. A later piece begins with the token
before its first target, at position 0. It does not see the previous piece.
"""

from __future__ import annotations

import numpy as np

from gptjax.data.keys import POSITIONS, SEGMENTS, TARGETS, TOKENS, WEIGHTS
from gptjax.data.packed_index import BLOCK, count_up, open_index
from gptjax.data.tokens import TokenSource


class PackedWindows:
    """Rows of T positions, filled best-fit with the pieces of a split's documents.

    The pieces of each row are read from files (`packed_index.py`), so that neither memory use nor the data sent to
    loader processes grow with the split.
    """

    LAYOUT = f"begin token, then each document; best fit in blocks of {BLOCK} tokens"
    FORMS: tuple[str, ...] = ("text", "labelled")
    LENGTHS = ("sequence_length",)
    left_out: int = 0

    def __init__(self, source: TokenSource, sequence_length: int):
        """Raises ConfigError if no document has a target, or the index cannot be stored."""
        self._source = source
        self._length = sequence_length
        self._index = open_index(source, sequence_length)

    def __len__(self) -> int:
        return self._index.num_rows

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens, targets, segments, positions int32 [B, T] and weights float32 [B, T] of some rows.

        Segments count from 1 within a row and are 0 in padding, which comes last; positions start at 0 in each segment.
        """
        counts_B, starts, lengths = self._index.pieces(index_B)
        within = count_up(counts_B)  # index of each piece in its row
        tokens = self._source.take_runs(starts - 1, lengths + 1)  # each piece's inputs, and its last target
        ends = np.cumsum(lengths + 1)
        is_input, is_target = np.ones((2, len(tokens)), bool)
        is_input[ends - 1] = is_target[ends - lengths - 1] = False

        row_of = np.repeat(np.arange(len(index_B)), counts_B)
        filled_B = np.bincount(row_of, lengths, len(index_B))
        inside_BT = np.arange(self._length) < filled_B[:, None]
        values = {
            TOKENS: tokens[is_input],
            TARGETS: tokens[is_target],
            SEGMENTS: np.repeat(within + 1, lengths),
            POSITIONS: count_up(lengths),
        }
        rows = {WEIGHTS: inside_BT.astype(np.float32)}
        for name, inside in values.items():
            rows[name] = np.zeros(inside_BT.shape, np.int32)
            rows[name][inside_BT] = inside
        return rows

    def spans(self, index: int) -> np.ndarray:
        """int64 [pieces, 3]: (first position in the row, place of its target in the stream, targets) of each piece."""
        _, starts, lengths = self._index.pieces(np.array([index]))
        return np.stack([np.cumsum(lengths) - lengths, starts, lengths], axis=1)
