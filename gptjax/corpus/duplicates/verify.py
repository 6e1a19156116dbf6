"""The exact Jaccard similarity of candidate pairs: |A ∩ B| / |A ∪ B| of their sets of shingles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from gptjax.corpus.duplicates.join import distinct, unpack
from gptjax.corpus.duplicates.shingles import shingle_hashes


class Sets(Protocol):
    """Sorted unique shingle hashes, uint64, by node number."""

    def __getitem__(self, node: int) -> np.ndarray: ...


def jaccard(edges: np.ndarray, sets: Sets, threshold: float = 0.0) -> np.ndarray:
    """float32 [edges]: the similarity of each packed edge; 0 if the sizes of the sets already exclude `threshold`."""
    found = np.zeros(len(edges), np.float32)
    held, first = -1, np.zeros(0, np.uint64)
    for place, (i, j) in enumerate(zip(*(ends.tolist() for ends in unpack(edges)))):
        if i != held:
            held, first = i, sets[i]
        second = sets[j]
        if min(len(first), len(second)) < threshold * max(len(first), len(second)):
            continue
        both = np.concatenate([first, second])
        both.sort()
        shared = int(np.count_nonzero(both[1:] == both[:-1]))
        found[place] = shared / max(len(both) - shared, 1)
    return found


def unique_shingles(texts: Sequence[str], n: int, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64, offsets int64 [texts + 1]): the shingles of each text, sorted, each once."""
    flat, offsets = shingle_hashes(texts, n, unit)
    sets = [distinct(flat[start:end]) for start, end in itertools.pairwise(offsets)]
    return np.concatenate([*sets, flat[:0]]), np.concatenate([[0], np.cumsum([len(one) for one in sets], dtype=int)])


class SetFolder:
    """Shingle sets in memory-mapped files: processes share the pages that they read, and the system may drop them.

    Args:
      folder: holds files NAME.sets (hashes), NAME.index.npy (uint64 [documents, 3]: node, first and one-past-last
        place), and as `index_sets` makes them, nodes.npy and places.npy: all nodes, ascending, and the number of the
        part and both places of each.
    """

    def __init__(self, folder: Path):
        self._paths = _parts(folder)
        self._parts: dict[int, np.ndarray] = {}
        if (folder / "nodes.npy").exists():
            self.nodes = np.load(folder / "nodes.npy", mmap_mode="r")
            self._places = np.load(folder / "places.npy", mmap_mode="r")
        else:
            self.nodes, self._places = np.zeros(0, np.uint32), np.zeros((0, 3), np.uint64)

    def __getitem__(self, node: int) -> np.ndarray:
        part, start, end = self._places[np.searchsorted(self.nodes, np.uint32(node))].tolist()
        if part not in self._parts:
            path = self._paths[part]
            self._parts[part] = np.memmap(path, np.uint64, "r") if path.stat().st_size else np.zeros(0, np.uint64)
        return np.asarray(self._parts[part][start:end])


def write_sets(path: Path, nodes: np.ndarray, sets: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    """Writes one part of a SetFolder: `path` is folder/NAME.sets; sets: those of the nodes, as unique_shingles gives
    them, some at a time.
    """
    counts = [np.zeros(1, np.int64)]
    with open(path, "wb") as file:
        for flat, offsets in sets:
            flat.tofile(file)
            counts.append(np.diff(offsets))
    ends = np.cumsum(np.concatenate(counts))
    np.save(path.with_suffix(".index.npy"), np.stack([nodes, ends[:-1], ends[1:]], axis=1).astype(np.uint64))


def index_sets(folder: Path) -> None:
    """Makes the index over all parts."""
    index = [np.load(path.with_suffix(".index.npy")) for path in _parts(folder)]
    part = np.repeat(np.arange(len(index), dtype=np.uint64), [len(one) for one in index])
    table = np.concatenate(index)
    order = np.argsort(table[:, 0])
    np.save(folder / "nodes.npy", table[order, 0].astype(np.uint32))
    np.save(folder / "places.npy", np.stack([part[order], *table[order, 1:].T], axis=1))


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.sets"))
