"""How much of a text repeats itself: lines, paragraphs, and n-grams of words (Gopher, arXiv:2112.11446, table A1).

An n-gram can only repeat where the n-gram one shorter does, so few of the longer ones need to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptjax.corpus.cleaning.characters import Spans, Texts
from gptjax.data.splitmix import STEP, mix


def later_copies(texts: Texts, spans: Spans) -> np.ndarray:
    """bool [spans]: whether an equal span comes before it in the same text."""
    order, starts, _ = _groups(_keys(texts.hashes(spans.starts, spans.ends), spans.owners))
    later = np.ones(len(spans), bool)
    later[order[starts]] = False
    return later


def ngram_characters(
    texts: Texts, words: Spans, top: Sequence[int], duplicate: Sequence[int]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Characters of each text in repeated n-grams of words.

    Returns:
      n → float64 [texts], for each n of `top`: characters in all occurrences of the most frequent n-gram (the first of
      equally frequent ones), with single spaces between its words.
      n → float64 [texts], for each n of `duplicate`: characters in n-grams that also occur earlier, taken from the left
      so that none overlaps another; without spaces.
    """
    hashes = texts.hashes(words.starts, words.ends)
    before = np.concatenate([[0], np.cumsum(words.lengths)])
    text_ends = words.bounds[1:][words.owners]
    places, keys = np.arange(len(words)), _keys(hashes, words.owners)
    tops, duplicates = {}, {}
    for n in range(2, max(*top, *duplicate) + 1):
        inside = places + n <= text_ends[places]
        places, keys = places[inside], keys[inside]
        keys = mix(keys * STEP + hashes[places + n - 1])
        order, starts, sizes = _groups(keys)
        again = sizes > 1
        if n in top:
            firsts = places[order[starts[again]]]
            tops[n] = _most_frequent(words, before, n, firsts, sizes[again])
        if n in duplicate:
            later = np.ones(len(places), bool)
            later[order[starts]] = False
            chosen = _without_overlap(places[later], n)
            size = before[chosen + n] - before[chosen]
            duplicates[n] = np.bincount(words.owners[chosen], weights=size, minlength=len(texts))
        repeated = np.zeros(len(places), bool)
        repeated[order[np.repeat(again, sizes)]] = True
        places, keys = places[repeated], keys[repeated]
    return tops, duplicates


def _keys(hashes: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Hashes that are equal only within a text."""
    return mix(hashes + mix(owners.astype(np.uint64)))


def _groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order int64 [keys], starts, sizes int64 [groups]): places of equal keys side by side, ascending in each group.

    A key's place takes its low bits, so that a plain sort is enough: for a million keys 44 bits of each remain.
    """
    bits = np.uint64(max(len(keys) - 1, 1).bit_length())
    packed = keys >> bits << bits | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    packed >>= bits
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(keys), 1), bool), packed[1:] != packed[:-1]]))
    return order, starts, np.diff(starts, append=len(keys))


def _most_frequent(words: Spans, before: np.ndarray, n: int, firsts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """If no n-gram occurs twice, the first is the most frequent. firsts, sizes: those of n-grams that occur twice."""
    chosen, times = words.bounds[:-1].copy(), (words.counts >= n).astype(np.int64)
    order = np.lexsort((firsts, -sizes, words.owners[firsts]))
    owners = words.owners[firsts[order]]
    best = order[np.flatnonzero(np.diff(owners, prepend=-1))]
    chosen[words.owners[firsts[best]]], times[words.owners[firsts[best]]] = firsts[best], sizes[best]
    chosen[times == 0] = 0
    ends = np.minimum(chosen + n, len(words))
    return ((before[ends] - before[chosen] + n - 1) * times).astype(np.float64)


def _without_overlap(places: np.ndarray, n: int) -> np.ndarray:
    """Takes from ascending places each that is at least n after the last one taken."""
    chosen, free = [], 0
    for place in places.tolist():
        if place >= free:
            chosen.append(place)
            free = place + n
    return np.array(chosen, np.int64)
