"""The pieces of documents in each packed row: computed once per split and row length, then read from files.

Blocks of consecutive documents are packed separately, so that a large split needs no more memory than a small one. The
files are kept in the user's cache folder (stored_index.py).

starts.bin   uint64: for each piece, in the order of the rows, the place of its first target in the stream
lengths.bin  uint32: how many targets it has
first.bin    uint64 [rows + 1]: row r has the pieces first[r] to first[r + 1]
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.stored_index import StoredIndex
from gptjax.data.tokens import TokenSource

FIELD = "data.windows = 'packed'"
BLOCK = 1 << 24  # tokens of the stream whose documents are packed together
_FILES: dict[str, np.dtype] = {"starts": np.dtype("<u8"), "lengths": np.dtype("<u4"), "first": np.dtype("<u8")}


# (offsets int64 [documents + 1] of a block) → int64 [pieces]: place of the first target and number of targets of each.
Pieces = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def open_index(source: TokenSource, sequence_length: int) -> PackedIndex:
    """The index of a split for rows of `sequence_length`; it is made if it does not exist.

    Raises:
      ConfigError: no document has a target, or there is no room for the index.
    """
    made_from = (source.offsets_hash, source.own_begin, source.num_tokens, sequence_length, BLOCK)
    pieces = functools.partial(pieces_of, own_begin=source.own_begin, sequence_length=sequence_length)
    index = stored_pieces(made_from, source, sequence_length, pieces, FIELD)
    if not index.num_rows:
        raise ConfigError(f"{FIELD}: {source.folder} has no document with a token to learn")
    return index


def stored_pieces(made_from: Any, source: TokenSource, sequence_length: int, pieces: Pieces, what: str) -> PackedIndex:
    """The index of the pieces that a function gives for each block; made_from and what: as `StoredIndex` takes them."""
    write = functools.partial(_write, source=source, sequence_length=sequence_length, pieces=pieces)
    return PackedIndex(StoredIndex(made_from, _FILES, write, what))


class PackedIndex:
    """The opened files of an index."""

    def __init__(self, stored: StoredIndex):
        self._stored = stored
        self.num_rows = len(stored.arrays["first"]) - 1
        self.num_pieces = len(stored.arrays["starts"])

    def pieces(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64: the number of pieces of each row; the place of each piece's first target; its number of targets."""
        arrays = self._stored.arrays
        counts_B, pieces = members(arrays["first"], rows_B)
        starts, lengths = (arrays[name][pieces].astype(np.int64) for name in ("starts", "lengths"))
        return counts_B, starts, lengths


def members(first: np.ndarray, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64: the number of members of each row, and the numbers of all members; row r has first[r] to first[r + 1]."""
    first_B = first[rows_B].astype(np.int64)
    counts_B = first[rows_B + 1].astype(np.int64) - first_B
    return counts_B, np.repeat(first_B, counts_B) + count_up(counts_B)


def _write(files: Mapping[str, IO[bytes]], source: TokenSource, sequence_length: int, pieces: Pieces) -> None:
    offsets = source.document_offsets()
    num_pieces = 0
    for begin, end in blocks(offsets):
        starts, lengths = pieces(offsets[begin : end + 1].astype(np.int64))
        row_of, num_rows = best_fit(lengths, sequence_length)
        # Within a row, pieces are in the order of placement, the longest first.
        order = np.argsort(row_of, kind="stable")
        first = num_pieces + np.searchsorted(row_of[order], np.arange(num_rows))
        for name, values in (("starts", starts[order]), ("lengths", lengths[order]), ("first", first)):
            files[name].write(values.astype(_FILES[name]).tobytes())
        num_pieces += len(starts)
    files["first"].write(np.array([num_pieces], _FILES["first"]).tobytes())


def blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """The first document of each block and the document after its last. A block's documents begin within BLOCK
    tokens."""
    edges = np.arange(0, int(offsets[-1]) + BLOCK, BLOCK, dtype=np.uint64)
    documents = np.minimum(np.searchsorted(offsets, edges), len(offsets) - 1)
    yield from itertools.pairwise(documents.tolist())


def count_up(lengths: np.ndarray) -> np.ndarray:
    """Concatenates 0 … n-1 for each n of `lengths`: [2, 3] → [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def pieces_of(offsets: np.ndarray, own_begin: int, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The place of each piece's first target in the stream and its number of targets (1 … T), in document order."""
    targets = np.diff(offsets) - own_begin
    counts = -(-targets // sequence_length)
    within = count_up(counts) * sequence_length
    starts = np.repeat(offsets[:-1] + own_begin, counts) + within
    return starts, np.minimum(np.repeat(targets, counts) - within, sequence_length)


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Best-fit decreasing bin packing (as in arXiv:2404.10830): (row of each piece, number of rows).

    In order of decreasing length, each piece goes to the fullest row that has room for it. Pieces of equal length and
    rows with equal room are interchangeable, so they are placed in groups: the work grows with the capacity and hardly
    with the number of pieces.
    """
    order = np.argsort(-lengths, kind="stable")
    sizes, group_starts = np.unique(-lengths[order], return_index=True)
    row_of = np.empty(len(lengths), np.int64)
    rooms: dict[int, list[np.ndarray]] = {}  # room → rows with that much room left
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
            # A row that was the best fit for one piece stays the best fit until it has no room for another one.
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
