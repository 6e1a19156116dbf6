"""The texts of known licences, and how much of another text they account for.

The texts are those of the SPDX licence list (CC0-1.0), reduced to their words, in `license_texts.json.xz`;
`experiments/corpus/licenses.py` makes that file. A text is compared by its runs of four words: what no known licence
accounts for is left over, and the caller judges whether it adds or removes a condition.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FILE = os.path.join(os.path.dirname(__file__), "license_texts.json.xz")
GRAM = 4  # words: shorter runs occur by chance, longer ones lose more around every changed name
CONTAINED = 0.7  # of a licence's runs of words: a text with fewer is not that licence
REPLACED = 3  # words in the place of a passage: with more, it was replaced, not left out
LONGEST = 60_000  # words of a text that are compared: the licences of a few hundred bundled parts

_MARKUP = re.compile(
    r"<[a-zA-Z/!][^<>]{0,200}>|\]\([^()\s]{0,300}\)|&(?:quot|amp|lt|gt|nbsp);|[\u00ad\ufeff]"
    r"|\b(?:https?://|ftp://|www\.)[^\s<>\"')]+|\S+@\S+\.\w+"
)
_WORD = re.compile(r"[^\W_]+(?:\.\d+)*")
_BROKEN = re.compile(r"(?<=[a-z])-[ \t]*\n[^\w\n]*(?=[a-z])|(?<=\bsub)[- ](?=licens)|(?<=\bnon)[- ](?=[a-z])")
_SPELLINGS = {"licence": "license", "licences": "licenses", "licenced": "licensed", "acknowledgement": "acknowledgment"}
# A line that only says who holds the copyright since when; the words that may stand beside it are few.
_COPYRIGHT = re.compile(
    r"(?im)^[^\w\n]*(?:portions )?(?:copyright\b(?=[^\n]*(?:\(c\)|©|\d{4}|<year>|yyyy))|\(c\)|©)"
    r"(?![^\n]*(?:licen[cs]|permi|grant|use|distribut|commercial|must|shall|only\b|not\b|subject|under\b))[^\n]*$"
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
      words: name of a licence → the words of its text.
      exact: digest of the words of every text of the SPDX list → its name.
    """

    def __init__(self, texts: dict[str, str], exact: dict[str, str]) -> None:
        self.words, self.exact = texts, exact
        self._words = {name: text.split() for name, text in texts.items()}
        self._places: dict[str, list[tuple[str, int]]] = {}  # run of words → (licence, where in it)
        for name, words in self._words.items():
            for at, run in enumerate(_runs(words)):
                self._places.setdefault(run, []).append((name, at))

    def match(self, words: Sequence[str], quoted: str = "") -> Match:
        """Which licences a text contains, and which of its words they leave over.

        Of `quoted` the words count as accounted for although not all of the licence is there: a notice has only a part.
        """
        here: dict[str, np.ndarray] = {}  # licence → which words of the text it has as well
        there: dict[str, np.ndarray] = {}  # licence → where the text has each of its words; -1: nowhere
        for at, run in enumerate(_runs(words)):
            for name, place in self._places.get(run, ()):
                if name not in here:
                    here[name], there[name] = np.zeros(len(words), bool), np.full(len(self._words[name]), -1)
                here[name][at : at + GRAM] = True
                there[name][place : place + GRAM] = np.arange(at, at + GRAM)[: len(words) - at]
        left = np.ones(len(words), bool)
        names, missing = [], []
        if quoted:
            names.append(quoted)
            left &= ~here.get(quoted, np.zeros(len(words), bool))
        whole = [name for name in here if (there[name] >= 0).mean() >= CONTAINED]
        while whole:  # the one that explains most of what is left, less what it would have said besides
            best = max(whole, key=lambda name: ((here[name] & left).sum() - (there[name] < 0).sum(), -len(there[name])))
            whole.remove(best)
            # A licence that shares nearly all of its text with one that was found before is not there a second time.
            if (here[best] & left).sum() >= CONTAINED * len(there[best]):
                names.append(best)
                left &= ~here[best]
                missing.extend(_gaps(self._words[best], there[best]))
        return Match(names, left, missing)


def _gaps(words: Sequence[str], there: np.ndarray) -> list[str]:
    """The passages of a licence that a text skips: it goes on at their end where it was at their beginning."""
    edges = (np.flatnonzero(np.diff(there < 0)) + 1).tolist()
    starts = [edge for edge in edges if there[edge] < 0]
    gaps = [(start, min(end for end in edges if end > start)) for start in starts if start < edges[-1]]
    return [" ".join(words[start:end]) for start, end in gaps if 0 < there[end] - there[start - 1] <= REPLACED + 1]


def _runs(words: Sequence[str]) -> list[str]:
    return [" ".join(words[at : at + GRAM]) for at in range(max(len(words) - GRAM + 1, min(len(words), 1)))]


@functools.cache
def known() -> Texts:
    with lzma.open(FILE, "rt", encoding="utf-8") as file:
        content = json.load(file)
    return Texts(content["words"], content["exact"])
