"""Encodes with tiktoken's compiled BPE, with the same ids as a SentencePiece BPE model.

Both join, again and again, the two neighbours whose concatenation is the best token, the leftmost ones first.
SentencePiece begins with characters and prefers the piece with the highest score; tiktoken begins with bytes and
prefers the token with the lowest rank. So the bytes of characters must be joined before all else: characters of several
bytes, and their beginnings, have the lowest ranks. If a beginning stays, because the vocabulary lacks the character, it
stands for the byte tokens that SentencePiece gives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import tiktoken

from gptjax.tokenizer.sentencepiece_file import BYTE, NORMAL, UNUSED, USER_DEFINED, Piece


class MergeEncoder:
    """Encodes texts by a model's merges. Use `can_encode` first.

    Args:
      pieces: those of a BPE model with byte fallback, in the order of their ids, with spaces as spaces.
      pattern: matches the next word (words.py); no token crosses its borders.
    """

    def __init__(self, pieces: Sequence[Piece], pattern: re.Pattern[str]):
        tokens: dict[bytes, list[int]] = {}  # in the order of their ranks: what they stand for → their ids
        byte_ids = {int(piece.text[3:5], 16): i for i, piece in enumerate(pieces) if piece.type == BYTE}
        of_text = [(piece, i) for i, piece in enumerate(pieces) if piece.type in (NORMAL, USER_DEFINED)]
        characters = [piece.text.encode() for piece, _ in of_text if len(piece.text) == 1]
        for size in (1, 2, 3):
            beginnings = characters if size > 1 else [bytes([byte]) for byte in range(256)]
            for value in beginnings:
                tokens.setdefault(value[:size], [byte_ids[byte] for byte in value[:size]])
        for value in characters:
            tokens.setdefault(value, [])
        for piece, i in sorted(of_text, key=lambda each: -each[0].score):
            tokens[piece.text.encode()] = [i]
        self._counts = np.array([len(ids) for ids in tokens.values()])
        self._starts = np.cumsum(self._counts) - self._counts
        self._ids = np.array([i for ids in tokens.values() for i in ids], np.int32)
        ranks = {value: rank for rank, value in enumerate(tokens)}
        self._coding = tiktoken.Encoding("merges", pat_str=pattern.pattern, mergeable_ranks=ranks, special_tokens={})

    def ids(self, texts: Sequence[str], threads: int) -> list[np.ndarray]:
        """int32 [tokens] for each text."""
        for text in texts:
            text.encode()  # says what is wrong with a lone surrogate, which tiktoken would replace
        if threads > 1 and len(texts) > 1:
            ranks = self._coding.encode_ordinary_batch(list(texts), num_threads=threads)
        else:
            ranks = list(map(self._coding.encode_ordinary, texts))
        return [self._of_ranks(np.array(each, np.int64)) for each in ranks]

    def _of_ranks(self, ranks: np.ndarray) -> np.ndarray:
        counts = self._counts[ranks]
        before = np.cumsum(counts) - counts
        return self._ids[np.repeat(self._starts[ranks] - before, counts) + np.arange(counts.sum())]


def can_encode(pieces: Sequence[Piece]) -> bool:
    """Whether the ids are provably SentencePiece's.

    Pieces of equal score are joined in the order of their places, unused ones are taken apart again, and symbols of the
    user are found before any other: tiktoken does none of this.
    """
    of_text = [piece for piece in pieces if piece.type in (NORMAL, USER_DEFINED)]
    longer = [piece for piece in of_text if len(piece.text) > 1]
    symbols = {piece.text for piece in of_text if piece.type == USER_DEFINED}
    return (
        not any(piece.type == UNUSED for piece in pieces)
        and len({piece.text for piece in of_text}) == len(of_text)
        and len({piece.score for piece in longer}) == len(longer)
        and all(len(symbol) == 1 for symbol in symbols)
        and not any(symbols & set(piece.text) for piece in longer)
    )
