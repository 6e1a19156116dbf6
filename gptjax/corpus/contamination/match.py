"""Finds the grams of an index in documents: looks up all windows of a batch at once, then compares word by word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gptjax.corpus.contamination.index import Index, composed
from gptjax.corpus.duplicates.shingles import window_hashes, word_hashes, word_spans, words

EXAMPLE = 300  # characters of a shared passage that are kept


@dataclass(frozen=True)
class Match:
    """A document that contains grams.

    Attributes:
      text: its number among those that were searched.
      grams: int64, the grams; words: int64, the word at which each begins, ascending.
    """

    text: int
    grams: np.ndarray
    words: np.ndarray


def find(index: Index, texts: Sequence[str]) -> Iterator[Match]:
    """A match for each text that has any. Colliding hashes give no match, because the words are compared."""
    texts = [composed(text) for text in texts]
    values, offsets = word_hashes(texts)
    places, grams = [], []
    for (window, known, first), (slots, shift) in zip(index.tables(), index.filters):
        hashes, window_offsets = window_hashes(values, offsets, window)
        windows = np.flatnonzero(slots[hashes >> shift])
        left = np.searchsorted(known, hashes[windows], "left")
        count = np.searchsorted(known, hashes[windows], "right") - left
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        windows = np.repeat(windows, count)
        text_of = np.searchsorted(window_offsets, windows, "right") - 1
        places.append(windows - window_offsets[text_of] + offsets[text_of])
        grams.append(np.repeat(left, count) + within + first)
    if not places:
        return
    place, gram = np.concatenate(places), np.concatenate(grams)
    text_of = np.searchsorted(offsets, place, "right") - 1
    order = np.lexsort((gram, place))
    for number in np.unique(text_of).tolist():
        here = order[text_of[order] == number]
        begins, candidates = place[here] - offsets[number], gram[here]
        equal = _equal(index, texts[number], begins, candidates)
        if equal.any():
            yield Match(number, candidates[equal], begins[equal])


def _equal(index: Index, text: str, begins: np.ndarray, grams: np.ndarray) -> np.ndarray:
    """bool: whether the text's words from each place on are those of the gram."""
    unknown = -1
    ids = np.array([index.vocabulary.get(word, unknown) for word in words(text)], np.int32)
    lengths, starts = index.lengths[grams], index.places[grams]
    equal = begins + lengths <= len(ids)
    for k in range(lengths.max()):
        inside = equal & (k < lengths)
        equal[inside] = ids[begins[inside] + k] == index.word_ids[starts[inside] + k]
    return equal


def passage(index: Index, text: str, match: Match) -> str:
    """The first run of a text that a match covers, at most EXAMPLE characters of it."""
    text = composed(text)
    first = end = int(match.words[0])
    for begin, length in zip(match.words.tolist(), index.lengths[match.grams].tolist()):
        if begin > end:
            break
        end = max(end, begin + length)
    spans = word_spans(text)
    return text[spans[first, 0] : spans[end - 1, 1]][:EXAMPLE]
