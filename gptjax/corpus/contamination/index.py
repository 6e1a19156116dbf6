"""The n-grams of evaluation texts, found by their hashes and compared by their words.

Both sides are normalized in the same way: composed (NFC), then words as in duplicates/shingles.py, so that case,
punctuation and spaces make no difference, and a character of a script without spaces is a word. Every n-gram of a text
of n words or more is searched for. A shorter text of at least `least_words` words is searched for as a whole, by its
first `least_words` words. Shorter texts prove nothing (Brown et al., 2020, appendix C, take n from 8 to 13
for the same reason).
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.corpus.contamination.evaluations import Item
from gptjax.corpus.duplicates.join import distinct, pack, unpack
from gptjax.corpus.duplicates.shingles import window_hashes, word_hashes, words

SLOTS = 16  # bits of the filter per n-gram: the more bits, the fewer hashes pass that are not in it
AT_ONCE = 1 << 16  # n-grams compared at once


def composed(text: str) -> str:
    """The NFC form of a text, from which its words are taken."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class Index:
    """The n-grams to look for, numbered: first all n-grams, sorted by their hashes, then the short texts by theirs.

    Attributes:
      windows: how many words the hashes of both kinds cover: (n, least_words).
      counts: the number of grams of each kind; hashes: uint64 [grams], ascending within a kind.
      places, lengths: int64 [grams], where the words of a gram begin in `word_ids`, and how many there are.
      word_ids: int32, the words of all texts; vocabulary: word → its id.
      sets, items: names, and each item's id; set_of_item: int32 [items].
      gram_of_pair, item_of_pair: int64 [pairs], the items that contain each gram; grams ascending.
      too_short: int64 [sets], the number of items without a text that is long enough.
    """

    windows: tuple[int, int]
    counts: tuple[int, int]
    hashes: np.ndarray
    places: np.ndarray
    lengths: np.ndarray
    word_ids: np.ndarray
    vocabulary: dict[str, int]
    sets: list[str]
    items: list[str]
    set_of_item: np.ndarray
    gram_of_pair: np.ndarray
    item_of_pair: np.ndarray
    too_short: np.ndarray

    def tables(self) -> list[tuple[int, np.ndarray, int]]:
        """(window, hashes, number of the first gram) of each kind of grams that exists."""
        firsts = (0, self.counts[0])
        return [
            (window, self.hashes[first : first + count], first)
            for window, count, first in zip(self.windows, self.counts, firsts)
            if count
        ]

    @functools.cached_property
    def filters(self) -> list[tuple[np.ndarray, np.uint64]]:
        """(bool [2^b], shift) of each table: a hash that is in it is True at its first b bits."""
        found = []
        for _, hashes, _ in self.tables():
            bits = min(max((SLOTS * len(hashes)).bit_length(), 16), 27)
            slots = np.zeros(1 << bits, bool)
            slots[hashes >> np.uint64(64 - bits)] = True
            found.append((slots, np.uint64(64 - bits)))
        return found

    def pairs_of(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `grams`, item) of every item that contains each gram."""
        first = np.searchsorted(self.gram_of_pair, grams, "left")
        count = np.searchsorted(self.gram_of_pair, grams, "right") - first
        place = np.repeat(np.arange(len(grams)), count)
        within = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        return place, self.item_of_pair[first[place] + within]

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        header = {"windows": self.windows, "counts": self.counts, "vocabulary": list(self.vocabulary)}
        header |= {"sets": self.sets, "items": self.items}
        np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def load(path: Path) -> Index:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes())
    vocabulary = {word: number for number, word in enumerate(header.pop("vocabulary"))}
    windows, counts = tuple(header.pop("windows")), tuple(header.pop("counts"))
    return Index(windows=windows, counts=counts, vocabulary=vocabulary, **header, **arrays)


def build(sets: Iterable[tuple[str, Iterable[Item]]], n: int, least_words: int) -> Index:
    """The index of sets, each (name, items); least_words ≤ n."""
    names, items, set_of_item = [], [], []
    texts: dict[str, int] = {}  # a gram that several items share is stored once
    texts_of_item: list[list[int]] = []
    for name, of_set in sets:
        names.append(name)
        for item in of_set:
            items.append(item.id)
            set_of_item.append(len(names) - 1)
            texts_of_item.append([texts.setdefault(composed(text), len(texts)) for text in item.texts])
    vocabulary: dict[str, int] = {}
    ids = [vocabulary.setdefault(word, len(vocabulary)) for text in texts for word in words(text)]
    word_ids = np.array(ids, np.int32)
    values, offsets = word_hashes(list(texts))
    lengths = np.diff(offsets)

    hashes, places, text_of = _windows(values, offsets, n)
    order = np.argsort(hashes, kind="stable")
    hashes, places, text_of = hashes[order], places[order], text_of[order]
    first = ~_like_the_one_before(hashes, places, word_ids, n)
    gram = np.cumsum(first) - 1

    short_hashes, short_places, short_of = _windows(values, offsets, least_words)
    whole = (short_places == offsets[:-1][short_of]) & (lengths[short_of] < n)
    short_hashes, short_places, short_of = short_hashes[whole], short_places[whole], short_of[whole]
    order = np.argsort(short_hashes, kind="stable")
    short_hashes, short_places, short_of = short_hashes[order], short_places[order], short_of[order]

    counts = (int(np.count_nonzero(first)), len(short_hashes))
    grams = np.concatenate([gram, counts[0] + np.arange(counts[1])])
    gram_of_pair, item_of_pair = _pairs(grams, np.concatenate([text_of, short_of]), texts_of_item, len(texts))
    found = np.zeros(len(items), bool)
    found[item_of_pair] = True
    set_of = np.array(set_of_item, np.int32)
    return Index(
        windows=(n, least_words),
        counts=counts,
        hashes=np.concatenate([hashes[first], short_hashes]),
        places=np.concatenate([places[first], short_places]),
        lengths=np.concatenate([np.full(counts[0], n), lengths[short_of]]),
        word_ids=word_ids,
        vocabulary=vocabulary,
        sets=names,
        items=items,
        set_of_item=set_of,
        gram_of_pair=gram_of_pair,
        item_of_pair=item_of_pair,
        too_short=np.bincount(set_of[~found], minlength=len(names)),
    )


def _windows(values: np.ndarray, offsets: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hash, first word, text) of every window of n words."""
    hashes, window_offsets = window_hashes(values, offsets, n)
    text_of = np.repeat(np.arange(len(offsets) - 1), np.diff(window_offsets))
    return hashes, np.arange(len(hashes)) - window_offsets[text_of] + offsets[text_of], text_of


def _like_the_one_before(hashes: np.ndarray, places: np.ndarray, word_ids: np.ndarray, n: int) -> np.ndarray:
    """bool [grams]: whether a gram has the same words as the one before it; equal hashes do not prove that."""
    same = np.zeros(len(hashes), bool)
    after = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
    for start in range(0, len(after), AT_ONCE):
        here = after[start : start + AT_ONCE]
        both = [word_ids[places[at][:, None] + np.arange(n)] for at in (here, here - 1)]
        same[here] = (both[0] == both[1]).all(axis=1)
    return same


def _pairs(
    grams: np.ndarray, text_of: np.ndarray, texts_of_item: Sequence[Sequence[int]], num_texts: int
) -> tuple[np.ndarray, np.ndarray]:
    """(gram, item), each pair once, ascending, from (gram, text) and the texts of each item."""
    item = np.repeat(np.arange(len(texts_of_item)), [len(texts) for texts in texts_of_item])
    text = np.array([text for texts in texts_of_item for text in texts], np.int64)
    order = np.argsort(text, kind="stable")
    item, first = item[order], np.searchsorted(text[order], np.arange(num_texts + 1))
    count = np.diff(first)[text_of]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    items = item[np.repeat(first[text_of], count) + within]
    pairs = distinct(pack(np.repeat(grams, count), items))
    first_ends, second_ends = unpack(pairs)
    return first_ends.astype(np.int64), second_ends.astype(np.int64)
