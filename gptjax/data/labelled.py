"""Labelled texts: a row has one text and the number of its label."""

from __future__ import annotations

import numpy as np

from gptjax.data.keys import LABELS, SEGMENTS, TOKENS, WEIGHTS
from gptjax.data.tokens import TokenSource


class LabelledRows:
    """Row i has the begin token and text i, with at most T tokens in total; the end of a longer text is cut off.

    Attributes:
      truncated: the number of texts that are longer than a row.
    """

    LAYOUT = "begin token, then the beginning of one text"
    FORMS = ("labelled",)
    LENGTHS = ("sequence_length",)
    left_out = 0

    def __init__(self, source: TokenSource, sequence_length: int):
        self._source, self._length = source, sequence_length
        _, lengths = self._places(np.arange(len(self)))
        self.truncated = int((lengths > sequence_length).sum())

    def __len__(self) -> int:
        return len(self._source.document_offsets()) - 1

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """Returns some rows: tokens and segments int32 [B, T] (segment 1 is the text, 0 padding), labels int32 [B], and
        weights float32 [B], all 1."""
        starts_B, lengths_B = self._places(index_B)
        lengths_B = np.minimum(lengths_B, self._length)
        inside_BT = np.arange(self._length) < lengths_B[:, None]
        tokens = np.zeros(inside_BT.shape, np.int32)
        tokens[inside_BT] = self._source.take_runs(starts_B, lengths_B)
        labels_B = self._source.document_labels()[index_B].astype(np.int32)
        weights_B = np.ones(len(index_B), np.float32)
        return {TOKENS: tokens, SEGMENTS: inside_BT.astype(np.int32), LABELS: labels_B, WEIGHTS: weights_B}

    def spans(self, index: int) -> np.ndarray:
        """int64 [1, 3]: (position in the row, place in the stream, tokens) of the text in the row."""
        starts, lengths = self._places(np.array([index]))
        return np.stack([np.ones(1, np.int64), starts + 1, np.minimum(lengths, self._length) - 1], axis=1)

    def _places(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [B]: the place of each text's begin token, and the number of tokens from there to the end of the
        text."""
        offsets, own_begin = self._source.document_offsets(), self._source.own_begin
        starts_B = offsets[index_B].astype(np.int64) - 1 + own_begin
        return starts_B, offsets[index_B + 1].astype(np.int64) - 1 - starts_B
