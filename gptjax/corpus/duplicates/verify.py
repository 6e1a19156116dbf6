"""The exact Jaccard similarity of candidate pairs: |A ∩ B| / |A ∪ B| of their sets of shingles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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
    """Shingle sets in memory-mapped files: per part a file of hashes, and one index of all nodes.

    Args:
      folder: holds files NAME.npy (hashes) and NAME.index.npy (uint64 [documents, 3]: node, first and one-past-last
        place).
    """

    def __init__(self, folder: Path):
        paths = sorted(folder.glob("*.index.npy"))
        self._parts = [np.load(str(path).replace(".index.npy", ".npy"), mmap_mode="r") for path in paths]
        index = [np.load(path) for path in paths]
        part = np.repeat(np.arange(len(index)), [len(one) for one in index])
        table = np.concatenate([np.zeros((0, 3), np.uint64), *index])
        order = np.argsort(table[:, 0])
        self.nodes, self._starts, self._ends = table[order].T
        self._part = part[order]

    def __getitem__(self, node: int) -> np.ndarray:
        place = np.searchsorted(self.nodes, np.uint64(node))
        return np.asarray(self._parts[self._part[place]][self._starts[place] : self._ends[place]])


def write_sets(path: Path, nodes: np.ndarray, flat: np.ndarray, offsets: np.ndarray) -> None:
    """Writes one part of a SetFolder: `path` is folder/NAME.npy; offsets int64 [nodes + 1]."""
    np.save(path, flat)
    index = np.stack([nodes, offsets[:-1], offsets[1:]], axis=1).astype(np.uint64)
    np.save(path.with_suffix(".index.npy"), index)
