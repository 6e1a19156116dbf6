"""The texts of known licences, and how much of another text they account for.

The texts are those of the SPDX licence list (CC0-1.0), reduced to their words, in `license_texts.json.xz`, which
`experiments/corpus/licenses.py` makes, and further forms of them in `license_variants.toml`. A text is compared by its
runs of four words: what no known licence accounts for is left over, and the caller judges whether it adds or removes a
condition.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gptjax.corpus.formats import license_passages

FILE = os.path.join(os.path.dirname(__file__), "license_texts.json.xz")
GRAM = 4  # words: shorter runs occur by chance, longer ones lose more around every changed name
CONTAINED = 0.7  # of a licence's runs of words: a text with fewer is not that licence
LONG_WORD = 6  # letters: in a shorter one, one letter makes another word
REPLACED = 3  # words in the place of a passage: with more, it was replaced, not left out
LONGEST = 60_000  # words of a text that are compared: the licences of a few hundred bundled parts

_MARKUP = re.compile(
    r"<[a-zA-Z/!][^<>]{0,200}>|\]\([^()\s]{0,300}\)|&(?:quot|amp|lt|gt|nbsp);|[\u00ad\ufeff\uff61-\uff9f]"
    r"|\b(?:https?://|ftp://|www\.)[^\s<>\"')]+|\S+@\S+\.\w+"
)
_WORD = re.compile(r"[^\W_]+(?:\.\d+)*")
_BROKEN = re.compile(r"(?<=[a-z])-[ \t]*\n[^\w\n]*(?=[a-z])|(?<=\bsub)[- ](?=licens)|(?<=\bnon)[- ](?=[a-z])")
_SPELLINGS = {"licence": "license", "licences": "licenses", "licenced": "licensed", "acknowledgement": "acknowledgment",
              "acknowledgements": "acknowledgments", "acknowlegement": "acknowledgment"}  # fmt: skip
# A line that only says who holds the copyright since when; the words that may stand beside it are few.
_COPYRIGHT = re.compile(
    r"(?im)^[^\w\n]*(?:portions )?(?:copyright\b(?=[^\n]*(?:\(c\)|©|\d{4}|<year>|yyyy))|\(c\)|©)"
    r"(?![^\n]*(?:licen[cs]|permi|grant|use|distribut|commercial|must|shall|only\b|not\b|subject|under\b))"
    rf"(?![^\n]*{license_passages.CONDITION.pattern})[^\n]*$"
)


def words_of(text: str) -> list[str]:
    """The words of a licence's text in lower case, without markup, lines of copyright and quirks of spelling."""
    plain = _BROKEN.sub("", _MARKUP.sub(" ", _COPYRIGHT.sub(" ", text)).lower())
    return [_SPELLINGS.get(word, word) for word in _WORD.findall(plain)]


def digest(words: Sequence[str]) -> str:
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8).hexdigest()


class Match(NamedTuple):
    """What known licences account for in a text.

    Attributes:
      names: licences that the text contains nearly whole, or that the caller named.
      left: [words] whether a word belongs to none of them.
      missing: passages that the text leaves out from the midst of one of them.
    """

    names: list[str]
    left: np.ndarray
    missing: list[str]


class Texts:
    """The known texts, indexed by their runs of words.

    Attributes:
      texts: (name of a licence, the words of one of its texts).
      exact: digest of the words of every text of the SPDX list → its name.
    """

    def __init__(self, texts: Iterable[tuple[str, Sequence[str]]], exact: dict[str, str]) -> None:
        self.texts, self.exact = list(texts), exact
        self._places: dict[str, list[tuple[int, int]]] = {}  # run of words → (number of the text, where in it)
        for number, (_, words) in enumerate(self.texts):
            for at, run in enumerate(_runs(words)):
                self._places.setdefault(run, []).append((number, at))

    def match(self, words: Sequence[str], quoted: str = "") -> Match:
        """Which licences a text contains, and which of its words they leave over.

        Of `quoted` the words count as accounted for although not all of the licence is there: a notice has only a part.
        """
        here: dict[int, np.ndarray] = {}  # number of a text → which words of `words` it has as well
        there: dict[int, np.ndarray] = {}  # number of a text → where `words` has each of its words; -1: nowhere
        for at, run in enumerate(_runs(words)):
            for number, place in self._places.get(run, ()):
                if number not in here:
                    here[number] = np.zeros(len(words), bool)
                    there[number] = np.full(len(self.texts[number][1]), -1)
                here[number][at : at + GRAM] = True
                there[number][place : place + GRAM] = np.arange(at, at + GRAM)[: len(words) - at]
        left = np.ones(len(words), bool)
        names, missing = [], []
        if quoted:
            names.append(quoted)
            for number in here:
                if self.texts[number][0] == quoted:
                    left &= ~here[number]
        whole = [number for number in here if (there[number] >= 0).mean() >= CONTAINED]
        while whole:  # the one that explains most of what is left, less what it would have said besides
            best = max(whole, key=lambda one: ((here[one] & left).sum() - (there[one] < 0).sum(), -len(there[one])))
            whole.remove(best)
            # A licence that shares nearly all of its text with one that was found before is not there a second time.
            if (here[best] & left).sum() >= CONTAINED * len(there[best]):
                name, text = self.texts[best]
                names.append(name)
                left &= ~here[best]
                for start, end in _gaps(there[best]):
                    first, last = there[best][start - 1] + 1, there[best][end]
                    if _same_letters(words[first:last], text[start:end]):
                        left[first:last] = False
                    elif last - first <= REPLACED and not {*text[start:end]} <= {*words[first:last]}:
                        missing.append(" ".join(text[start:end]))
        return Match(sorted(set(names)), left, missing)


def _gaps(there: np.ndarray) -> list[tuple[int, int]]:
    """The passages of a licence that a text skips or spells otherwise before it continues with the licence."""
    edges = (np.flatnonzero(np.diff(there < 0)) + 1).tolist()
    starts = [edge for edge in edges if there[edge] < 0]
    gaps = [(start, min(end for end in edges if end > start)) for start in starts if start < edges[-1]]
    return [(start, end) for start, end in gaps if there[start - 1] < there[end]]


def _same_letters(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two passages differ in nothing but spaces ('sub license', 'ofthe') or one letter of a long word."""
    if "".join(one) == "".join(other):
        return True
    if not len(one) == len(other) == 1 or min(len(one[0]), len(other[0])) < LONG_WORD:
        return False
    shorter, longer = sorted((one[0], other[0]), key=len)
    at = next((place for place, (a, b) in enumerate(zip(shorter, longer)) if a != b), len(shorter))
    return longer[at + 1 :] in (shorter[at:], shorter[at + 1 :])


def _runs(words: Sequence[str]) -> list[str]:
    return [" ".join(words[at : at + GRAM]) for at in range(max(len(words) - GRAM + 1, min(len(words), 1)))]


@functools.cache
def known() -> Texts:
    with lzma.open(FILE, "rt", encoding="utf-8") as file:
        content = json.load(file)
    texts = [(name, words.split()) for name, words in content["words"].items()]
    texts += [(one["name"], words_of(one["text"])) for one in license_passages.variants()["texts"]]
    return Texts(texts, content["exact"])
