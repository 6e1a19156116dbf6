"""The pieces of documents in each packed row: computed once per split and row length, then read from files.

Blocks of consecutive documents are packed separately, so that a large split takes no more memory than a small one. The
files are in the user's cache folder, named by the hash of everything that they depend on. They are not in the prepared
folder, which never changes once it is made. Deleted files are made again.

starts.bin   uint64: for each piece, in the order of the rows, the place of its first target in the stream
lengths.bin  uint32: how many targets it has
first.bin    uint64 [rows + 1]: row r has the pieces first[r] to first[r + 1]
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import xxhash

from gptjax.config import ConfigError
from gptjax.data.tokens import TokenSource
from gptjax.folders import cache_folder

BLOCK = 1 << 24  # tokens of the stream whose documents are packed together
_FILES: dict[str, np.dtype] = {"starts": np.dtype("<u8"), "lengths": np.dtype("<u4"), "first": np.dtype("<u8")}


def open_index(source: TokenSource, sequence_length: int) -> PackedIndex:
    """The index of a split for rows of `sequence_length`, made now if it has not been made before.

    Raises:
      ConfigError: no document has a token to learn, or there is no room for the index.
    """
    made_from = (source.offsets_hash, source.own_begin, source.num_tokens, sequence_length, BLOCK)
    path = cache_folder() / "packed" / xxhash.xxh3_64_hexdigest(repr(made_from).encode())
    if not path.is_dir():
        try:
            _make(path, source, sequence_length)
        except OSError as error:
            raise ConfigError(
                f"data.windows = 'packed': {path}: cannot store which documents share a row ({error.strerror}); "
                "set XDG_CACHE_HOME to another cache folder"
            ) from None
    index = PackedIndex(path)
    if not index.num_rows:
        raise ConfigError(f"data.windows = 'packed': {source.folder} has no document with a token to learn")
    return index


class PackedIndex:
    """The opened files of an index. Pickling keeps only their path."""

    def __init__(self, path: Path):
        self._path = path
        self.num_rows = len(self._arrays["first"]) - 1

    def __getstate__(self) -> dict:
        return {"_path": self._path, "num_rows": self.num_rows}

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """Memory maps; empty files cannot be mapped, and give empty arrays."""
        paths = {name: self._path / f"{name}.bin" for name in _FILES}
        return {
            name: np.asarray(np.memmap(path, _FILES[name], mode="r"))
            if path.stat().st_size
            else np.empty(0, _FILES[name])
            for name, path in paths.items()
        }

    def pieces(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64: the number of pieces of each row; the place of each piece's first target; its number of targets."""
        first = self._arrays["first"]
        first_B = first[rows_B].astype(np.int64)
        counts_B = first[rows_B + 1].astype(np.int64) - first_B
        pieces = np.repeat(first_B, counts_B) + count_up(counts_B)
        starts, lengths = (self._arrays[name][pieces].astype(np.int64) for name in ("starts", "lengths"))
        return counts_B, starts, lengths


def _make(path: Path, source: TokenSource, sequence_length: int) -> None:
    """Writes the index to a temporary folder and renames that; another process may have been faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        with contextlib.ExitStack() as files:
            opened = {name: files.enter_context(open(beside / f"{name}.bin", "wb")) for name in _FILES}
            _write(opened, source, sequence_length)
            for file in opened.values():
                file.flush()
                os.fsync(file.fileno())
        try:
            beside.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(files: Mapping[str, IO[bytes]], source: TokenSource, sequence_length: int) -> None:
    offsets = source.document_offsets()
    # Block b has the documents that begin within its tokens.
    edges = np.arange(0, source.num_tokens + BLOCK, BLOCK, dtype=np.uint64)
    documents = np.minimum(np.searchsorted(offsets, edges), len(offsets) - 1)
    num_pieces = 0
    for begin, end in zip(documents[:-1].tolist(), documents[1:].tolist()):
        starts, lengths = pieces_of(offsets[begin : end + 1].astype(np.int64), source.own_begin, sequence_length)
        row_of, num_rows = best_fit(lengths, sequence_length)
        order = np.argsort(row_of, kind="stable")  # in a row the longest piece comes first, as placed
        first = num_pieces + np.searchsorted(row_of[order], np.arange(num_rows))
        for name, values in (("starts", starts[order]), ("lengths", lengths[order]), ("first", first)):
            files[name].write(values.astype(_FILES[name]).tobytes())
        num_pieces += len(starts)
    files["first"].write(np.array([num_pieces], _FILES["first"]).tobytes())


def count_up(lengths: np.ndarray) -> np.ndarray:
    """0 … n-1 for each n of `lengths`, one after the other: [2, 3] → [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def pieces_of(offsets: np.ndarray, own_begin: int, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The place of each piece's first target in the stream, and its number of targets (1 … T), in document order."""
    targets = np.diff(offsets) - own_begin
    counts = -(-targets // sequence_length)
    within = count_up(counts) * sequence_length
    starts = np.repeat(offsets[:-1] + own_begin, counts) + within
    return starts, np.minimum(np.repeat(targets, counts) - within, sequence_length)


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Best-fit decreasing bin packing (as arXiv:2404.10830): (row of each piece, number of rows).

    Longest first, a piece goes to the fullest row that still has room for it. Pieces of equal length and rows with
    equal room are interchangeable, so they are placed in groups: the work grows with the capacity, and hardly with the
    number of pieces.
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
