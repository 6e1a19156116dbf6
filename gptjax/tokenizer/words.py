"""Encodes each distinct word of a text once, with the ids that a BPE model gives for the whole text.

BPE only ever joins two neighbours whose concatenation is a piece of the vocabulary. If no piece contains the characters
a and b side by side, then no token crosses the border between an a and a b, and what happens on one side of it does not
depend on the other side. The ids of a text are then those of its parts, one after another, and parts that occur again
need not be encoded again. A model's own pieces decide where such borders are:

- before the spaces that begin a word, if no piece has a space after another character;
- around every character that is in no piece together with a different one, such as a newline, a tab or a digit.

If there are pieces of several words, only the second kind of border is left, and a word here is mostly a line.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

BLOCK = 1 << 20  # characters of a text that are cut into words at once
MOST_CHARACTERS = 1 << 23  # of remembered words; together with their ids they take about 100 MB
SHARED = 1 << 10  # words from which on several threads encode


class WordEncoder:
    """Encodes texts by their words.

    Args:
      pattern: matches the next word (`word_pattern`).
      encode: (words, number of threads) → their ids.
      known: words whose ids are not the model's → their ids.
    """

    def __init__(
        self,
        pattern: re.Pattern[str],
        encode: Callable[[Sequence[str], int], list[list[int]]],
        known: dict[str, list[int]],
    ):
        self._pattern, self._encode = pattern, encode
        self._known = {word: array("i", ids).tobytes() for word, ids in known.items()}
        self._remembered, self._characters = dict(self._known), 0

    def ids(self, texts: Sequence[str], threads: int) -> list[np.ndarray]:
        """int32 [tokens] for each text."""
        return [self._ids(text, threads) for text in texts]

    def _ids(self, text: str, threads: int) -> np.ndarray:
        parts: list[bytes] = []
        for words in self.words(text):
            ids_of = self._remembered  # another thread may begin a new one
            if unknown := list(set(words).difference(ids_of)):
                if self._characters > MOST_CHARACTERS:
                    self._remembered = ids_of = dict(self._known)
                    self._characters, unknown = 0, list(set(words).difference(ids_of))
                encoded = self._encode(unknown, threads if len(unknown) >= SHARED else 1)
                ids_of.update(zip(unknown, (array("i", ids).tobytes() for ids in encoded)))
                self._characters += sum(map(len, unknown))
            parts.extend(map(ids_of.__getitem__, words))
        return np.frombuffer(bytearray().join(parts), np.int32)

    def words(self, text: str) -> Iterator[list[str]]:
        """The words of a text, some at a time; joined, they are the text."""
        start = 0
        while start < len(text):
            words = self._pattern.findall(text, start, start + BLOCK)
            if start + BLOCK < len(text):
                words.pop()  # it may go on after the block
            if not words and (long_one := self._pattern.match(text, start)):
                words = [long_one[0]]
            start += sum(map(len, words))
            yield words


def word_pattern(pieces: Iterable[str]) -> re.Pattern[str]:
    """The pattern of a word for a BPE model. pieces: those that text can become, with spaces as spaces."""
    longer = [piece for piece in pieces if len(piece) > 1]
    mixed = {character for piece in longer if piece.strip(piece[0]) for character in piece}
    repeated = {piece[0] for piece in longer} - mixed - {" "}
    inside = mixed if any(" " in piece.lstrip(" ") for piece in longer) else mixed - {" "}
    words = [f" *[{''.join(map(_escaped, sorted(inside)))}]+"] if inside else []
    runs = [f"{_escaped(character)}+" for character in sorted(repeated)]
    return re.compile("|".join([*words, " +", *runs, "(?s:.)"]))


def _escaped(character: str) -> str:
    """The character in a pattern that `re` and the regular expressions of Rust read alike."""
    return f"\\{character}" if character in r"\^$.|?*+()[]{}-&~#" else character
