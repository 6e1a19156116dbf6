"""Passages that stand in a corpus more than once: every window of n units whose like has come before.

What the suffix array of Lee et al. (2021, "Deduplicating training data makes language models better") finds for one
length n is found here by hashing every window and joining the hashes part by part: 16 bytes on disk and one flag in
memory a unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gptjax.corpus.duplicates.join import Chunks, equal_keys


def later_copies(hashes: Iterable[np.ndarray], total: int, folder: Path, memory: int) -> np.ndarray:
    """bool [total]: whether an equal hash stands at a smaller place.

    Args:
      hashes: uint64 arrays that follow one another, of `total` values in all.
      folder, memory: where to spill, and the bytes to stay below (beside the answer itself).
    """
    later = np.zeros(total, bool)
    for members, starts in equal_keys(_placed(hashes), total, folder, memory):
        later[members] = True
        later[members[starts]] = False
    return later


def covered(windows: np.ndarray, n: int) -> np.ndarray:
    """bool [windows + n - 1]: the units that lie in any marked window of n units; windows bool [windows]."""
    change = np.zeros(len(windows) + n, np.int64)
    change[: len(windows)] += windows
    change[n:] -= windows
    return np.cumsum(change)[:-1] > 0


def runs(marks: np.ndarray) -> np.ndarray:
    """int64 [runs, 2]: the runs of True in a bool array: first place, and the one after the last."""
    return np.flatnonzero(np.diff(marks, prepend=False, append=False)).reshape(-1, 2)


def without(text: str, spans: np.ndarray) -> str:
    """`text` with the given spans of characters left out; int64 [spans, 2], ascending, apart from one another."""
    kept, start = [], 0
    for first, last in spans.tolist():
        kept.append(text[start:first])
        start = last
    return "".join([*kept, text[start:]])


def _placed(hashes: Iterable[np.ndarray]) -> Chunks:
    start = 0
    for chunk in hashes:
        yield chunk, np.arange(start, start + len(chunk), dtype=np.uint64)
        start += len(chunk)
