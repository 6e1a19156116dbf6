"""Many texts as one array of code points, with their words and lines as arrays of places.

A word is what is between spaces, as published rules count words. In scripts that are written without spaces
(Chinese, Japanese, Thai, Lao, Khmer, Burmese) every letter is a word, so that lengths in words mean something there.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gptjax.corpus.duplicates.shingles import UNICODE, WITHOUT_SPACES, powers
from gptjax.data.splitmix import mix

BATCH_CHARACTERS = 1 << 17  # per batch: enough to outweigh a call of NumPy, few enough for the cache

# What a character is, as bits. WORD: a letter, mark or digit; ALONE: a letter that is a word; TERMINAL: may end a
# sentence; CLOSING: may stand between that and the space after it.
SPACE, LETTER, ALPHANUMERIC, WORD, ALONE, TERMINAL, CLOSING = (1 << bit for bit in range(7))

NEWLINE = ord("\n")
CLOSERS = "\"')]}»”’›」』）】"
# Unicode's Sentence_Terminal of living scripts: Latin, Armenian, Arabic, Syriac, Devanagari, Burmese, Ethiopic, Khmer,
# Mongolian, Chinese and Japanese, with the wide and small forms.
TERMINALS = ".!?։؝؞؟۔܀܁܂।॥၊။።፧፨។៕᠃᠉‼‽⁇⁈⁉⸮⸼。﹒﹖﹗！．？｡"


@dataclass(frozen=True)
class Texts:
    """Some texts with a newline before each and after the last.

    Attributes:
      joined: the string of all; codes: uint8 or uint32 [C], its code points; flags: uint8 [C], their kinds.
      bounds: int64 [texts + 1]; text i is codes[bounds[i]:bounds[i + 1] - 1].
    """

    joined: str
    codes: np.ndarray
    flags: np.ndarray
    bounds: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        joined = "\n" + "\n".join(texts) + "\n"
        if joined.isascii():
            encoded = joined.encode()
            codes = np.frombuffer(encoded, np.uint8)
            flags = np.frombuffer(encoded.translate(_flags()[:256].tobytes()), np.uint8)
        else:
            codes = np.frombuffer(joined.encode("utf-32-le"), "<u4")
            flags = _flags().take(codes, mode="clip")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(joined, codes, flags, 1 + np.concatenate([[0], np.cumsum(lengths + 1)]))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [texts]: characters."""
        return np.diff(self.bounds) - 1

    def count(self, marks: np.ndarray) -> np.ndarray:
        """int64 [texts]: the number of true `marks`, bool [C], in each text."""
        return self.count_places(np.flatnonzero(marks))

    def count_places(self, places: np.ndarray) -> np.ndarray:
        """int64 [texts]: how many of the given ascending places are in each text."""
        return np.diff(np.searchsorted(places, self.bounds))

    def words(self) -> Spans:
        space = self.flags & SPACE != 0
        alone = self.flags & ALONE != 0
        part = space[:-1] != space[1:]
        if alone.any():
            part |= (alone[:-1] | alone[1:]) & ~(space[:-1] & space[1:])
        edges = np.flatnonzero(part) + 1
        starts = edges[~space[edges]]
        ends = edges[~space[edges - 1]]
        return Spans(starts, ends, np.searchsorted(starts, self.bounds))

    def lines(self) -> Spans:
        """All lines, also empty ones, but not the empty one after a text's last newline."""
        newlines = np.flatnonzero(self.codes == NEWLINE)
        starts, ends = newlines[:-1] + 1, newlines[1:]
        keep = np.ones(len(starts), bool)
        last = np.searchsorted(ends, self.bounds[1:] - 1)
        keep[last[starts[last] == ends[last]]] = False
        starts, ends = starts[keep], ends[keep]
        return Spans(starts, ends, np.searchsorted(starts, self.bounds))

    @functools.cached_property
    def _sums(self) -> np.ndarray:
        rising, _ = powers(len(self.codes))
        return np.cumsum(self.codes * rising)

    def hashes(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """uint64 [spans]: hashes of the characters from `starts` up to `ends`, equal at any place."""
        _, falling = powers(len(self.codes))
        return mix((self._sums[ends - 1] - self._sums[starts - 1]) * falling[starts])


@dataclass(frozen=True)
class Spans:
    """Words or lines of texts, in order.

    Attributes:
      starts, ends: int64 [spans]: first place and the one after the last.
      bounds: int64 [texts + 1]; those of text i are starts[bounds[i]:bounds[i + 1]].
    """

    starts: np.ndarray
    ends: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    @property
    def counts(self) -> np.ndarray:
        """int64 [texts]."""
        return np.diff(self.bounds)

    @functools.cached_property
    def owners(self) -> np.ndarray:
        """int64 [spans]: the text that contains each."""
        return np.repeat(np.arange(len(self.bounds) - 1), self.counts)

    def total(self, values: np.ndarray) -> np.ndarray:
        """float64 [texts]: for each text, the sum of the values of its spans."""
        return np.bincount(self.owners, weights=values, minlength=len(self.bounds) - 1)


def batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Numbers of texts that make about BATCH_CHARACTERS together; a longer one is a batch of its own.

    ASCII texts are in batches of their own, since they take a quarter of the memory.
    """
    held: dict[bool, list[int]] = {True: [], False: []}
    characters = {True: 0, False: 0}
    for number, text in enumerate(texts):
        is_ascii = text.isascii()
        if held[is_ascii] and characters[is_ascii] + len(text) > BATCH_CHARACTERS:
            yield held[is_ascii]
            held[is_ascii], characters[is_ascii] = [], 0
        held[is_ascii].append(number)
        characters[is_ascii] += len(text)
    yield from filter(None, held.values())


@functools.cache
def _flags() -> np.ndarray:
    """uint8 [code points]: the flags of all code points below UNICODE; those beyond have none."""
    table = np.fromiter(map(_flags_of, map(chr, range(UNICODE))), np.uint8, UNICODE)
    for first, last in WITHOUT_SPACES:
        here = table[first : last + 1]
        here[here & LETTER != 0] |= ALONE
    for characters, flag in ((TERMINALS, TERMINAL), (CLOSERS, CLOSING)):
        table[[ord(character) for character in characters]] |= flag
    table[-1] = 0
    return table


def _flags_of(character: str) -> int:
    flags = SPACE * character.isspace() | LETTER * character.isalpha() | ALPHANUMERIC * character.isalnum()
    return flags | WORD * (unicodedata.category(character)[0] in "LMN")
