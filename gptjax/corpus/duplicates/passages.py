"""Passages of documents that may stand in a corpus more than once: what counts as one, its hash, its characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gptjax.config import ConfigError
from gptjax.corpus.duplicates.exact import paragraph_hashes, paragraph_spans
from gptjax.corpus.duplicates.shingles import shingle_hashes, word_spans
from gptjax.corpus.duplicates.substrings import covered, runs

KINDS = ("window", "paragraph", "line")
SEPARATORS = {"paragraph": r"\n\s*\n", "line": r"\n"}


@dataclass(frozen=True)
class Passages:
    """What is looked for.

    Attributes:
      kind: 'window', any run of `words` words, whatever stands between them; 'paragraph' or 'line', whole ones of at
        least that many words, the same but for white space.
      words: how long.
    """

    kind: str = "window"
    words: int = 50

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(f"passages.kind = {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.words < 1:
            raise ConfigError(f"passages.words = {self.words}: must be at least 1")

    def hashes(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(uint64 [passages], offsets int64 [texts + 1])."""
        if self.kind == "window":
            return shingle_hashes(texts, self.words)
        flat, offsets = paragraph_hashes(texts, SEPARATORS[self.kind])
        long = np.concatenate([self._long(text) for text in [*texts, ""]])
        return flat[long], np.concatenate([[0], np.cumsum(long)])[offsets]

    def spans(self, text: str, later: np.ndarray) -> np.ndarray:
        """int64 [spans, 2]: the characters of the marked passages; later bool [passages of the text]."""
        if self.kind == "window":
            words = word_spans(text)
            places = runs(covered(later, self.words))
            return np.stack([words[places[:, 0], 0], words[places[:, 1] - 1, 1]], axis=1)
        return paragraph_spans(text, SEPARATORS[self.kind])[self._long(text)][later]

    def _long(self, text: str) -> np.ndarray:
        spans = paragraph_spans(text, SEPARATORS[self.kind]).tolist()
        return np.array([len(text[start:end].split()) >= self.words for start, end in spans], bool)
