"""The pairs in each row: computed once per split and lengths, then read from files (stored_index.py).

Blocks of consecutive pairs are packed separately, like documents (packed_index.py). A pair that is longer than a row is
left out and counted, never cut.

pairs.bin     uint64: the pairs, in the order of the rows
first.bin     uint64 [rows + 1]: row r has the pairs first[r] to first[r + 1]
left_out.bin  uint64 [1]: the number of pairs that are longer than a row
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.packed_index import BLOCK, best_fit, blocks, members
from gptjax.data.stored_index import StoredIndex
from gptjax.data.tokens import TokenSource

_FILES = {name: np.dtype("<u8") for name in ("pairs", "first", "left_out")}
MOST_OPEN = 1024  # rows considered for a pair; more would take longer and hardly improve the packing


class PairIndex:
    """The pairs of each row.

    Args:
      source_length: S, positions for sources; 0: both sides of a pair follow each other in one row.
      sequence_length: T, positions for targets, or for both sides.

    Attributes:
      num_rows: rows of the split.
      left_out: pairs that are longer than a row.

    Raises:
      ConfigError: no pair fits into a row, or there is no room for the index.
    """

    def __init__(self, source: TokenSource, source_length: int, sequence_length: int):
        made_from = ("pairs", source.offsets_hash, source.own_begin, source_length, sequence_length, BLOCK)
        write = functools.partial(_write, source=source, source_length=source_length, sequence_length=sequence_length)
        self._stored = StoredIndex(made_from, _FILES, write, "data.sequence_length")
        self.num_rows = len(self._stored.arrays["first"]) - 1
        self.left_out = int(self._stored.arrays["left_out"][0])
        if not self.num_rows:
            lengths = f"data.sequence_length = {sequence_length}"
            if source_length:
                lengths = f"data.source_length = {source_length}, {lengths}"
            raise ConfigError(f"{lengths}: none of the {self.left_out:,} pairs of {source.folder} fits into a row")

    def pairs(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64: the number of pairs of each row, and the numbers of all pairs."""
        counts_B, places = members(self._stored.arrays["first"], rows_B)
        return counts_B, self._stored.arrays["pairs"][places].astype(np.int64)


def _write(files: Mapping[str, IO[bytes]], source: TokenSource, source_length: int, sequence_length: int) -> None:
    offsets = source.document_offsets()[::2]
    num_pairs = left_out = 0
    for begin, end in blocks(offsets):
        pairs = np.arange(begin, end)
        sources, targets = side_lengths(source, pairs)
        if source_length:
            fit = (sources <= source_length) & (targets <= sequence_length)
            row_of, num_rows = best_fit_of_two(sources[fit], targets[fit], source_length, sequence_length)
        else:
            whole = sources + targets + source.own_begin
            fit = whole <= sequence_length
            row_of, num_rows = best_fit(whole[fit], sequence_length)
        order = np.argsort(row_of, kind="stable")
        first = num_pairs + np.searchsorted(row_of[order], np.arange(num_rows))
        files["pairs"].write(pairs[fit][order].astype(_FILES["pairs"]).tobytes())
        files["first"].write(first.astype(_FILES["first"]).tobytes())
        num_pairs += len(order)
        left_out += len(pairs) - len(order)
    files["first"].write(np.array([num_pairs], _FILES["first"]).tobytes())
    files["left_out"].write(np.array([left_out], _FILES["left_out"]).tobytes())


def side_lengths(source: TokenSource, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [pairs]: the numbers of tokens of some pairs' sources and targets, with EOS but without BOS."""
    starts, middles, ends = (source.offsets_of(2 * pairs + place) for place in range(3))
    return middles - starts - source.own_begin, ends - middles - source.own_begin


def best_fit_of_two(
    sources: np.ndarray, targets: np.ndarray, source_length: int, sequence_length: int
) -> tuple[np.ndarray, int]:
    """Best-fit decreasing packing into rows with room for both sides: (row of each pair, number of rows).

    Pairs are placed in decreasing order of their share of a row. Each goes to the row that it leaves with the least
    room (the sum of both sides' shares) among the last MOST_OPEN opened rows that have room.
    """
    share = sources / source_length + targets / sequence_length
    order = np.argsort(-share, kind="stable")
    row_of = np.empty(len(order), np.int64)
    least = np.array([sources.min(initial=source_length), targets.min(initial=sequence_length)])
    rows = np.zeros(MOST_OPEN, np.int64)
    rooms = np.zeros((2, MOST_OPEN), np.int64)  # room for sources and for targets; a full row has no room for any pair
    left = np.full(MOST_OPEN, np.inf)  # the sum of both free shares
    num_rows = 0
    for pair in order.tolist():
        size = np.array([sources[pair], targets[pair]])
        fits: Any = (rooms >= size[:, None]).all(axis=0)
        place = int(np.where(fits, left, np.inf).argmin())
        if not fits[place]:
            place = int(left.argmin()) if np.isfinite(left).all() else int(np.isinf(left).argmax())
            rows[place], rooms[:, place] = num_rows, (source_length, sequence_length)
            num_rows += 1
        row_of[pair] = rows[place]
        rooms[:, place] -= size
        if (rooms[:, place] < least).any():  # nothing more fits
            rooms[:, place], left[place] = -1, np.inf
        else:
            left[place] = rooms[0, place] / source_length + rooms[1, place] / sequence_length
    return row_of, num_rows
