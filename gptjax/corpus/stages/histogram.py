"""Counts of documents and of their text by a key, such as the language or the length."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any


class Histogram:
    """key → [documents, bytes]."""

    def __init__(self):
        self._counts: dict[Any, list[int]] = {}

    def add(self, keys: Iterable[Hashable], sizes: Iterable[int]) -> None:
        """Adds one document per key, with its bytes."""
        for key, size in zip(keys, sizes):
            self._count(key, 1, size)

    def merge(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Adds the `counts` of another histogram, whose keys came back from JSON as text."""
        for key, (documents, size) in counts.items():
            self._count(int(key) if key.isdecimal() else key, documents, size)

    @property
    def counts(self) -> dict[str, list[int]]:
        """The counts in the order of the keys, as JSON."""
        return {str(key): counts for key, counts in sorted(self._counts.items())}

    def _count(self, key: Hashable, documents: int, size: int) -> None:
        counts = self._counts.setdefault(key, [0, 0])
        counts[0] += documents
        counts[1] += size


def reach(size: int) -> int:
    """The largest power of two up to a size, for a histogram of lengths; 0 for 0."""
    return 1 << size.bit_length() >> 1
