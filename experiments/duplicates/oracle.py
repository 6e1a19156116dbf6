"""Jaccard similarity of sets of five-word shingles, computed with Python sets; the searches are judged by it."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+")


def shingles(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return set(zip(*(words[i:] for i in range(5))))


def similarity(pair: tuple[str, str]) -> float:
    first, second = map(shingles, pair)
    return len(first & second) / max(len(first | second), 1)
