"""Finds equal keys among more keys than fit in memory, and makes edges of them: linearly many even for a huge group.

Keys are hashes, so cutting their range into equal parts gives parts of about equal size. If the keys do not fit into
the allowed memory, they are spilled to one pair of files per part, and each part is sorted on its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

ENTRY_BYTES = 40  # memory per key: itself, its node, its place in the order, and the sorted copy
Chunks = Iterable[tuple[np.ndarray, np.ndarray]]  # (keys uint64, nodes: unsigned integers of one dtype), equally long


def equal_keys(chunks: Chunks, total: int, folder: Path, memory: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of nodes with equal keys, part by part.

    Args:
      chunks: all keys with their nodes; total: how many there are at most.
      folder: for temporary files; memory: bytes to stay below.

    Yields:
      (members [group members], starts int64 [groups]): nodes in groups of two and more, ascending within each, and
      the place where each group begins.
    """
    parts = max(1, -(-total * ENTRY_BYTES // memory))
    if parts == 1:
        yield _groups(*_collect(chunks, total))
        return
    with tempfile.TemporaryDirectory(prefix="spill-", dir=folder) as spill:
        dtype = _spill(chunks, parts, Path(spill))
        for part in range(parts):
            keys_path, nodes_path = _names(Path(spill), part)
            yield _groups(np.fromfile(keys_path, np.uint64), np.fromfile(nodes_path, dtype))
            keys_path.unlink()
            nodes_path.unlink()


class Groups:
    """Groups of documents with equal keys, as equal_keys gives them, in two files."""

    def __init__(self, folder: Path, name: str):
        self._members, self._sizes = folder / f"{name}.members", folder / f"{name}.sizes"
        self._counts: list[tuple[int, int]] = []  # members and groups of each part

    def append(self, members: np.ndarray, starts: np.ndarray) -> None:
        for path, values in ((self._members, members), (self._sizes, np.diff(starts, append=len(members)))):
            with open(path, "ab") as file:
                values.astype(np.uint32).tofile(file)
        self._counts.append((len(members), len(starts)))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(members, starts) of each part."""
        if not self._counts:
            return
        with open(self._members, "rb") as members, open(self._sizes, "rb") as sizes:
            for number, groups in self._counts:
                ends = np.cumsum(np.fromfile(sizes, np.uint32, groups), dtype=np.int64)
                yield np.fromfile(members, np.uint32, number), np.concatenate([[0], ends])[:-1]


def candidate_edges(groups: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Edges between documents of a group: uint64 [edges], packed (see `pack`), ascending, unique.

    groups: (members, starts), members ascending within each group.
    """
    edges = np.zeros(0, np.uint64)
    for members, starts in groups:
        edges = distinct(np.concatenate([edges, linear_edges(members, starts)]))
    return edges


def linear_edges(members: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Packed edges of each group: every member to the group's first, and to its predecessor; at most two per member.

    A group may hold false candidates, which verification removes. With only a star or only a chain, a false candidate
    in the middle would separate documents that belong together.
    """
    if not len(members):
        return np.zeros(0, np.uint64)
    firsts = np.repeat(members[starts], np.diff(starts, append=len(members)))
    later = np.ones(len(members), bool)
    later[starts] = False
    star = pack(firsts[later], members[later])
    chain = pack(members[:-1][later[1:]], members[1:][later[1:]])
    return distinct(np.concatenate([star, chain]))


def pack(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs of node numbers below 2³², as one uint64 each."""
    return first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)


def unpack(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The uint32 node numbers of packed edges."""
    return (edges >> np.uint64(32)).astype(np.uint32), edges.astype(np.uint32)


def distinct(values: np.ndarray) -> np.ndarray:
    """The values, ascending, each once. np.unique uses a hash table for integers, which is 2 to 8 times slower."""
    values = np.sort(values)
    first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


def _groups(keys: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys)
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    shared = np.zeros(len(keys), bool)
    shared[1:] |= same
    shared[:-1] |= same
    keys, nodes = keys[shared], nodes[order[shared]]
    nodes = nodes[np.lexsort((nodes, keys))]
    return nodes, np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])


def _collect(chunks: Chunks, total: int) -> tuple[np.ndarray, np.ndarray]:
    """All chunks in two arrays, filled in place: np.concatenate would need twice the memory."""
    keys, nodes, filled = np.empty(total, np.uint64), np.empty(0, np.uint32), 0
    for some_keys, some_nodes in chunks:
        if not filled:
            nodes = np.empty(total, some_nodes.dtype)
        keys[filled : filled + len(some_keys)] = some_keys
        nodes[filled : filled + len(some_keys)] = some_nodes
        filled += len(some_keys)
    return keys[:filled], nodes[:filled]


def _spill(chunks: Chunks, parts: int, folder: Path) -> np.dtype:
    paths = [_names(folder, part) for part in range(parts)]
    for pair in paths:
        for path in pair:
            path.touch()
    dtype = np.dtype(np.uint32)
    for keys, nodes in chunks:
        dtype = nodes.dtype
        part = (keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
        order = np.argsort(part, kind="stable")
        edges = np.searchsorted(part[order], np.arange(parts + 1))
        for (keys_path, nodes_path), start, end in zip(paths, edges[:-1], edges[1:]):
            here = order[start:end]
            for path, values in ((keys_path, keys), (nodes_path, nodes)):
                with open(path, "ab") as file:
                    values[here].tofile(file)
    return dtype


def _names(folder: Path, part: int) -> tuple[Path, Path]:
    return folder / f"{part}.keys", folder / f"{part}.nodes"
