"""Packed windows: whole documents side by side in a row, which do not see each other.

A document of n tokens is n - 1 pairs of input and target, and takes n - 1 positions: its last token (EOS) is only ever
a target, so no position is spent on what would follow it. A document of more than T pairs is cut into pieces of T; all
pairs stay, as a piece begins with the token that the one before it predicted last.
"""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.tokens import TokenSource


class PackedWindows:
    """Rows of T positions, filled best-fit with the pieces of a split's documents; computed on opening."""

    def __init__(self, source: TokenSource, sequence_length: int):
        """Raises ConfigError where no document has two tokens."""
        self._source = source
        self._length = sequence_length
        starts, lengths = _pieces(source.document_offsets(), sequence_length)
        if not len(starts):
            raise ConfigError(f"data.windows = 'packed': {source.folder} has no document of two tokens")
        row_of, num_rows = best_fit(lengths, sequence_length)
        # What a row has left is one more piece, at its end, so that the pieces of every row are T positions.
        rows = np.arange(num_rows)
        left = sequence_length - np.bincount(row_of, lengths, num_rows).astype(np.int64)
        row_of = np.concatenate([row_of, rows])
        # Pieces by row, longest first as they were placed; row r holds pieces first[r] to first[r + 1].
        order = np.argsort(row_of, kind="stable")
        self._starts = np.concatenate([starts, np.zeros_like(rows)])[order]
        self._lengths = np.concatenate([lengths, left])[order]
        self._first = np.searchsorted(row_of[order], np.arange(num_rows + 1))

    def __len__(self) -> int:
        return len(self._first) - 1

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens, targets, segments, positions int32 [B, T] and weights float32 [B, T] of some rows.

        Segments count from 1 within a row and are 0 in padding; positions start at 0 in each segment.
        """
        counts_B = self._first[index_B + 1] - self._first[index_B]
        within = _count_up(counts_B)  # its row, of each piece
        pieces = np.repeat(self._first[index_B], counts_B) + within
        starts, lengths = self._starts[pieces], self._lengths[pieces]
        numbers = (within + 1).astype(np.int32)
        numbers[np.cumsum(counts_B) - 1] = 0  # the last piece of a row is what it has left

        segments = np.repeat(numbers, lengths)
        padding = np.flatnonzero(segments == 0)
        positions = _count_up(lengths)
        positions[padding] = 0
        places = np.repeat(starts, lengths) + positions
        tokens = self._source.take(places)
        tokens[padding] = 0
        # The target is the next token, which only a piece's last position has not beside it.
        targets = np.roll(tokens, -1)
        lasts = (np.cumsum(lengths) - 1)[numbers > 0]
        targets[lasts] = self._source.take(places[lasts] + 1)
        targets[padding] = 0

        rows = {
            "tokens": tokens,
            "targets": targets,
            "weights": (segments > 0).astype(np.float32),
            "segments": segments,
            "positions": positions.astype(np.int32),
        }
        return {name: values.reshape(len(index_B), self._length) for name, values in rows.items()}

    def spans(self, index: int) -> np.ndarray:
        """int64 [pieces, 3]: (first position in the row, first place in the stream, pairs) of each piece in the row."""
        pieces = slice(self._first[index], self._first[index + 1] - 1)  # the last is what the row has left
        lengths = self._lengths[pieces]
        return np.stack([np.cumsum(lengths) - lengths, self._starts[pieces], lengths], axis=1)


def _count_up(lengths: np.ndarray) -> np.ndarray:
    """0 … n-1 for each n of `lengths`, one after the other: [2, 3] → [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _pieces(offsets: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each piece begins in the stream, and its pairs (1 … T); in the documents' order."""
    pairs = np.maximum(np.diff(offsets) - 1, 0)
    counts = -(-pairs // sequence_length)
    within = _count_up(counts) * sequence_length
    starts = np.repeat(offsets[:-1], counts) + within
    return starts, np.minimum(np.repeat(pairs, counts) - within, sequence_length)


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Best-fit decreasing bin packing (as arXiv:2404.10830): (row of each piece, number of rows).

    Longest first, a piece goes to the fullest row that still has room for it. Pieces of one length and rows of one room
    are alike, so they are placed as groups: the work grows with the capacity, hardly with the number of pieces.
    """
    order = np.argsort(-lengths, kind="stable")
    sizes, group_starts = np.unique(-lengths[order], return_index=True)
    row_of = np.empty(len(lengths), np.int64)
    rooms: dict[int, list[np.ndarray]] = {}  # room → rows that have it left
    has_room = 0  # bit r: rooms[r] is not empty
    num_rows = 0
    for size, group in zip((-sizes).tolist(), np.split(order, group_starts[1:])):
        while len(group):
            roomy = has_room >> size
            if roomy:
                room = size + (roomy & -roomy).bit_length() - 1
                rows = np.concatenate(rooms.pop(room))
                has_room ^= 1 << room
            else:
                room = capacity
                rows = np.arange(num_rows, num_rows - (-len(group) // (capacity // size)))
                num_rows += len(rows)
            # A row that was the best fit for one piece stays the best fit until it is too full for another.
            each = room // size
            filled = np.repeat(rows, each)[: len(group)]
            row_of[group[: len(filled)]] = filled
            group = group[len(filled) :]
            whole, part = divmod(len(filled), each)
            for left, these in (
                (room - each * size, rows[:whole]),
                (room - part * size, rows[whole : whole + (part > 0)]),
                (room, rows[whole + (part > 0) :]),
            ):
                if left and len(these):
                    rooms.setdefault(left, []).append(these)
                    has_room |= 1 << left
    return row_of, num_rows
