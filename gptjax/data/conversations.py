"""Packed conversations: a row has several conversations, which do not see each other.

A conversation starts after a begin token, like a document in packed windows. Its EOS is not in the row, because no
template has written it. A conversation that is longer than a row loses its end or is left out. It is never divided over
two rows, since the second row would begin with an answer whose question is missing.
"""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.keys import WEIGHTS
from gptjax.data.packed_index import BLOCK, stored_pieces
from gptjax.data.packing import PackedWindows
from gptjax.data.tokens import TokenSource


class PackedConversations(PackedWindows):
    """Rows of T positions, filled best-fit with the conversations of a split.

    Only what the assistant wrote has a weight, or, with loss_on = 'all', every token. A conversation of which no token
    in the row has a weight is left out, so every row has something to learn.

    Attributes:
      left_out: the number of conversations that are left out.
      truncated: the number of conversations that lose their end.
    """

    LAYOUT = f"begin token, then each conversation without EOS; best fit in blocks of {BLOCK} tokens"
    FORMS: tuple[str, ...] = ("conversations",)
    LENGTHS = ("sequence_length",)
    OPTIONS = ("loss_on", "too_long")

    def __init__(self, source: TokenSource, sequence_length: int, loss_on: str, too_long: str):
        """Raises ConfigError if no conversation can be used, or the index cannot be stored."""
        self._source, self._length, self._too_long = source, sequence_length, too_long
        self._on_answers = loss_on == "assistant"
        made_from = (
            *("conversations", source.offsets_hash, source.supervised_hash, source.own_begin),
            *(sequence_length, loss_on, too_long, BLOCK),
        )
        self._index = stored_pieces(made_from, source, sequence_length, self._pieces, "data.path")
        lengths = np.diff(source.document_offsets().astype(np.int64)) - source.own_begin - 1
        self.left_out = len(lengths) - self._index.num_pieces
        if not self._index.num_rows:
            raise ConfigError(
                f"data.sequence_length = {sequence_length}: none of the {len(lengths):,} conversations of "
                f"{source.folder} has a supervised token in a row (data.loss_on = {loss_on!r}, data.too_long = "
                f"{too_long!r})"
            )
        too_many = int((lengths > sequence_length).sum())
        self.truncated = too_many - self.left_out if too_long == "truncate" else 0

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """As packed windows; the weights are 1 at targets that the loss is on."""
        rows = super().gather(index_B)
        if self._on_answers:
            _, starts, lengths = self._index.pieces(index_B)
            rows[WEIGHTS][rows[WEIGHTS] > 0] = self._source.take_supervised(starts, lengths)
        return rows

    def _pieces(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place of each conversation's first target, and the number of its targets in a row."""
        starts, lengths = offsets[:-1] + self._source.own_begin, np.diff(offsets) - self._source.own_begin - 1
        fits = lengths <= self._length if self._too_long == "skip" else np.ones(len(lengths), bool)
        starts, lengths = starts[fits], np.minimum(lengths[fits], self._length)
        learned = lengths
        if self._on_answers:
            ends = np.cumsum(lengths)
            totals = np.concatenate([[0], np.cumsum(self._source.take_supervised(starts, lengths))])
            learned = totals[ends] - totals[ends - lengths]
        return starts[learned > 0], lengths[learned > 0]
