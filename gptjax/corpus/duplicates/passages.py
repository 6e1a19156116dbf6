"""Passages that occur more than once in a corpus: what counts as a passage, its hash, its characters, its later copies.

Lee et al. (2021, "Deduplicating training data makes language models better") find them by a suffix array. For one
length n the same is found here by hashing every window and joining the hashes part by part: 16 bytes on disk and one
flag in memory per unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptjax.config import ConfigError
from gptjax.corpus.duplicates.join import Chunks, equal_keys
from gptjax.corpus.duplicates.shingles import shingle_hashes, word_spans
from gptjax.corpus.duplicates.sketch import text_hash

KINDS = ("window", "paragraph", "line")
SEPARATORS = {"paragraph": r"\n\s*\n", "line": r"\n"}


@dataclass(frozen=True)
class Passages:
    """The passages to search for.

    Attributes:
      kind: 'window': any run of `words` words, whatever stands between them; 'paragraph' or 'line': whole paragraphs or
        lines of at least `words` words, which may differ in white space.
      words: the length of a window, or the smallest length of a paragraph or line.
    """

    kind: str = "window"
    words: int = 50

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"passages.kind = {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.words < 1:
            raise ConfigError(f"passages.words = {self.words}: must be at least 1")

    def hashes(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(uint64 [passages], offsets int64 [texts + 1])."""
        if self.kind == "window":
            return shingle_hashes(texts, self.words)
        flat, offsets = paragraph_hashes(texts, SEPARATORS[self.kind])
        long = np.concatenate([self._long(text) for text in [*texts, ""]])
        return flat[long], np.concatenate([[0], np.cumsum(long)])[offsets]

    def spans(self, text: str, later: np.ndarray) -> np.ndarray:
        """int64 [spans, 2]: the characters of the marked passages; later bool [passages of the text]."""
        if self.kind == "window":
            words = word_spans(text)
            places = runs(covered(later, self.words))
            return np.stack([words[places[:, 0], 0], words[places[:, 1] - 1, 1]], axis=1)
        return paragraph_spans(text, SEPARATORS[self.kind])[self._long(text)][later]

    def _long(self, text: str) -> np.ndarray:
        spans = paragraph_spans(text, SEPARATORS[self.kind]).tolist()
        return np.array([len(text[start:end].split()) >= self.words for start, end in spans], bool)


def paragraph_hashes(texts: Sequence[str], separator: str = r"\n\s*\n") -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64 [paragraphs], offsets int64 [texts + 1]) of the parts between matches of `separator`."""
    spans = [paragraph_spans(text, separator) for text in texts]
    flat = [text_hash(text[start:end]) for text, places in zip(texts, spans) for start, end in places.tolist()]
    return np.array(flat, np.uint64), np.concatenate(
        [[0], np.cumsum([len(places) for places in spans], dtype=np.int64)]
    )


def paragraph_spans(text: str, separator: str = r"\n\s*\n") -> np.ndarray:
    """int64 [paragraphs, 2]: first character of each part that is not all space, and the one after its last."""
    spans, start = [], 0
    for match in re.finditer(separator, text):
        spans.append((start, match.start()))
        start = match.end()
    spans.append((start, len(text)))
    kept = [(start, end) for start, end in spans if text[start:end].strip()]
    return np.array(kept, np.int64).reshape(-1, 2)


def later_copies(hashes: Iterable[np.ndarray], total: int, folder: Path, memory: int) -> np.ndarray:
    """bool [total]: whether an equal hash comes before.

    Args:
      hashes: uint64 arrays that follow one another, of `total` values in all.
      folder, memory: where to spill, and the bytes to stay below (without the result itself).
    """
    later = np.zeros(total, bool)
    for members, starts in equal_keys(_placed(hashes), total, folder, memory):
        later[members] = True
        later[members[starts]] = False
    return later


def covered(windows: np.ndarray, n: int) -> np.ndarray:
    """bool [windows + n - 1]: the units inside a marked window of n units; windows: bool [windows], the marks."""
    change = np.zeros(len(windows) + n, np.int64)
    change[: len(windows)] += windows
    change[n:] -= windows
    return np.cumsum(change)[:-1] > 0


def runs(marks: np.ndarray) -> np.ndarray:
    """int64 [runs, 2]: the runs of True in a bool array: first place, and the one after the last."""
    return np.flatnonzero(np.diff(marks, prepend=False, append=False)).reshape(-1, 2)


def without(text: str, spans: np.ndarray) -> str:
    """`text` without the given spans of characters: int64 [spans, 2], ascending, not overlapping."""
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
