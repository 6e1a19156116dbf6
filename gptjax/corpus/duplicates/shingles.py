"""Hashes the words and n-gram shingles of texts; vectorized over characters, for all of Unicode.

A word is a run of letters, digits, marks and underscores, without regard to case. In scripts that are written without
spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character counts as a word, so that n words are n
characters there. Punctuation and spaces only separate words.

A window x[i], …, x[i+n-1] hashes to Σ x[i+k] Bᵏ mod 2⁶⁴ (Karp & Rabin, 1987). With prefix sums of x[j] Bʲ that is one
subtraction and one product by B⁻ⁱ, whatever n is: B is odd, so its inverse exists.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from gptjax.data.splitmix import STEP, mix

UNITS = ("word", "character")
BATCH_CHARACTERS = 1 << 15  # hashed at once: the arrays stay in the processor's cache
WINDOWS_AT_ONCE = 1 << 14  # values hashed at once: the arrays stay in the processor's cache
SMALL_BATCH = 1 << 14  # below this, another call costs as much as wider characters

SEPARATOR, WORD, SINGLE = range(3)  # what a character does: separates words, belongs to a word, is a word
LATIN_1, UNICODE = 1 << 8, 0x33480  # sizes of tables; there are no letters beyond the second
WITHOUT_SPACES = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai and Lao, Burmese, Khmer
    *((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),  # kana
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x33480)),  # Chinese characters
)


def shingle_hashes(texts: Sequence[str], n: int = 5, unit: str = "word") -> tuple[np.ndarray, np.ndarray]:
    """Hashes of every n neighbouring units (words, or characters that are not space) of each text.

    Returns:
      (hashes uint64 [shingles], offsets int64 [texts + 1]); text i has hashes[offsets[i]:offsets[i + 1]], in its own
      order, with repetitions; a text of fewer than n units has none.
    """
    return window_hashes(*word_hashes(texts, unit), n)


def word_hashes(texts: Sequence[str], unit: str = "word") -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64 [words], offsets int64 [texts + 1]) of the units of each text."""
    parts, counts = [np.zeros(0, np.uint64)], np.zeros(len(texts), np.int64)
    for segments, owners in _batches(texts):
        codes, segment_starts = _codes(segments)
        kinds, values = _alphabet(unit, LATIN_1 if codes.dtype == np.uint8 else UNICODE)
        # One conversion to the index type serves both look-ups. All characters beyond the table are separators.
        places = codes.astype(np.intp)
        starts, ends = _units(kinds.take(places, mode="clip"))
        rising, falling = powers(len(codes))
        sums = values.take(places, mode="clip")
        sums *= rising
        np.cumsum(sums, out=sums)
        hashes = sums[ends - 1]
        hashes -= sums[starts - 1]  # a text starts after a separator, so starts ≥ 1
        hashes *= falling[starts]
        parts.append(mix(hashes))
        np.add.at(counts, owners, np.diff(np.searchsorted(starts, segment_starts), append=len(starts)))
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(counts)])


def word_spans(text: str, unit: str = "word") -> np.ndarray:
    """int64 [words, 2]: the first character of each unit of `text` and the one after its last."""
    if not text:
        return np.zeros((0, 2), np.int64)
    codes, _ = _codes([text])
    kinds, _ = _alphabet(unit, LATIN_1 if codes.dtype == np.uint8 else UNICODE)
    return np.stack(_units(kinds.take(codes, mode="clip")), axis=1) - 1


def words(text: str, unit: str = "word") -> list[str]:
    """The units of `text` in one case: equal units have equal hashes."""
    folded = text.lower() if text.isascii() else text.translate(_FOLDING)
    return [folded[first:end] for first, end in word_spans(text, unit).tolist()]


def powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """(Bⁱ, B⁻ⁱ) for i in range(length), uint64."""
    rising, falling = _powers(max(length - 1, WINDOWS_AT_ONCE).bit_length())
    return rising[:length], falling[:length]


@functools.lru_cache(maxsize=8)
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    def series(base: int) -> np.ndarray:
        factors = np.full(1 << bits, base, np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return series(int(STEP)), series(pow(int(STEP), -1, 1 << 64))


def window_hashes(values: np.ndarray, offsets: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all windows of n neighbours within one document.

    Args:
      values: uint64 [values], the documents in order. Their bits should be mixed.
      offsets: int64 [documents + 1]; document d is values[offsets[d]:offsets[d + 1]].

    Returns:
      (hashes uint64 [windows], offsets int64 [documents + 1]); a document shorter than n has none.
    """
    counts = np.maximum(np.diff(offsets) - n + 1, 0)
    window_offsets = np.concatenate([[0], np.cumsum(counts)])
    total = len(values) - n + 1
    if total <= 0:
        return np.zeros(0, np.uint64), window_offsets
    hashes = np.empty(total, np.uint64)
    rising, falling = powers(WINDOWS_AT_ONCE + n)
    sums = np.zeros(WINDOWS_AT_ONCE + n, np.uint64)
    for start in range(0, total, WINDOWS_AT_ONCE):
        here = hashes[start : start + WINDOWS_AT_ONCE]
        size = len(here) + n - 1
        np.cumsum(values[start : start + size] * rising[:size], out=sums[1 : size + 1])
        np.subtract(sums[n : n + len(here)], sums[: len(here)], out=here)
        here *= falling[: len(here)]
        mix(here)
    inside = np.ones(len(values), bool)
    for back in range(1, n):  # a window that starts in a document's last n - 1 places extends past its end
        places = offsets[1:] - back
        inside[places[places >= 0]] = False
    return hashes[inside[:total]], window_offsets


def _batches(texts: Sequence[str]) -> Iterator[tuple[list[str], list[int]]]:
    """Segments of texts, each with the number of its text.

    ASCII is kept apart from slower text, unless the batches would become too small.
    """
    segments: list[str] = []
    owners: list[int] = []
    characters, ascii_alone = 0, True
    for number, text in enumerate(texts):
        for segment in _segments(text):
            apart = characters >= SMALL_BATCH and segment.isascii() != ascii_alone
            if segments and (characters + len(segment) > BATCH_CHARACTERS or apart):
                yield segments, owners
                segments, owners, characters = [], [], 0
            ascii_alone = segment.isascii() and (ascii_alone or not segments)
            segments.append(segment)
            owners.append(number)
            characters += len(segment)
    if segments:
        yield segments, owners


def _segments(text: str) -> Iterator[str]:
    """`text` in pieces of about a batch, cut at spaces or line ends, so that no word is cut."""
    start = 0
    while len(text) - start > BATCH_CHARACTERS:
        limit = start + BATCH_CHARACTERS
        cut = max(text.rfind(" ", start + 1, limit), text.rfind("\n", start + 1, limit))
        if cut < 0:
            following = [place for place in (text.find(" ", limit), text.find("\n", limit)) if place >= 0]
            cut = min(following, default=len(text))
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def _codes(segments: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Code points of the segments with a separator before each and at the end; and where each segment starts."""
    joined = "\n" + "\n".join(segments) + "\n"
    if joined.isascii():
        codes = np.frombuffer(joined.encode("ascii", "replace"), np.uint8)
    else:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    lengths = np.fromiter(map(len, segments), np.int64, len(segments))
    return codes, 1 + np.concatenate([[0], np.cumsum(lengths[:-1] + 1)])


def _units(kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last places of the units in an array of kinds that begins and ends with a separator."""
    word = kinds == WORD
    changes = np.flatnonzero(word[1:] != word[:-1]) + 1
    starts, ends = changes[0::2], changes[1::2]
    singles = np.flatnonzero(kinds == SINGLE)
    if not len(singles):
        return starts, ends
    return np.sort(np.concatenate([starts, singles])), np.sort(np.concatenate([ends, singles + 1]))


@functools.cache
def _alphabet(unit: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(kinds uint8 [size], values uint64 [size]) of the code points below `size`; letters of one case fold agree."""
    characters = [chr(code) for code in range(size)]
    kinds = np.fromiter(map(_kind if unit == "word" else _character_kind, characters), np.uint8, size)
    folded = np.fromiter(map(_folded, characters), np.uint64, size)
    for first, last in WITHOUT_SPACES:
        here = kinds[first : last + 1]
        here[here == WORD] = SINGLE
    kinds[-1] = SEPARATOR if size == UNICODE else kinds[-1]
    return kinds, mix(folded + np.uint64(1))


def _kind(character: str) -> int:
    joins = character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"
    return WORD if joins else SEPARATOR


def _character_kind(character: str) -> int:
    return SEPARATOR if character.isspace() else SINGLE


def _folded(character: str) -> int:
    for form in (character.casefold(), character.lower()):
        if len(form) == 1:
            return ord(form)
    return ord(character)


class _Folding(dict):
    """For str.translate: code point → `_folded`, computed when first needed."""

    def __missing__(self, code: int) -> int:
        self[code] = _folded(chr(code))
        return self[code]


_FOLDING = _Folding()
