"""Tokenizers that are SentencePiece models: BPE, unigram and others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from gptjax.config import ConfigError
from gptjax.tokenizer.interface import CONTROL_TOKENS, REPLACEMENT, Tokenizer
from gptjax.tokenizer.sentencepiece_file import settings, with_control_tokens, without_dummy_prefix

SPACE_MARK = "\u2581"  # '▁': SentencePiece represents a space by it
_GOES_ON = re.compile("\n[^\n]")  # a newline, and the first character of the next line
SEGMENT = 1 << 12  # characters that SentencePiece encodes at once; short segments stay in the CPU's cache


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model: one made by training.py, or any other that has an end-of-text token.

    The ids are those that the model gives for the whole text, of any length. There is one exception, if the model is
    lossless otherwise: a literal '▁', which SentencePiece would turn into a space, is encoded as its three bytes.
    """

    file_name = "tokenizer.model"
    libraries = ("sentencepiece",)

    def __init__(self, file_bytes: bytes):
        self._model = model = sentencepiece.SentencePieceProcessor(model_proto=file_bytes)
        stated = settings(file_bytes)
        pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
        self.kind = stated.kind
        controls = {piece: i for i, piece in enumerate(pieces) if model.is_control(i)}
        # The four special ids are the model's, whatever names it gives them.
        special = [model.unk_id(), model.bos_id(), model.eos_id(), model.pad_id()]
        controls |= {name: i for name, i in zip(CONTROL_TOKENS, special) if i >= 0}
        super().__init__(file_bytes, [self._value(i, piece) for i, piece in enumerate(pieces)], controls)
        if self.eos_id is None:
            raise ConfigError("tokenizer: the SentencePiece model has no end-of-text token (eos_id)")
        self._prefix = stated.dummy_prefix and not stated.spaces_are_suffixes
        self._suffix = stated.dummy_prefix and stated.spaces_are_suffixes
        self.first_bytes = b" " if self._prefix else b""
        # Text that the model rewrites, or has no token for, is lost. With byte fallback every character has tokens.
        self.lossless = not (stated.rewrites or stated.removes_spaces or self._suffix) and stated.marks_spaces
        self.lossless &= sum(model.is_byte(i) for i in range(len(pieces))) == 256
        # BPE only joins neighbours that form a piece of the vocabulary. If no piece continues after a newline, no token
        # does, and cutting a text there changes nothing. Unigram scores whole texts, and cutting changes the rounding.
        self._cut = self.lossless and self.kind == "bpe" and not any(map(_GOES_ON.search, pieces))
        self._space_mark_ids = [model.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        self._continued = model  # encodes the text after a cut
        if self._prefix:
            self._continued = sentencepiece.SentencePieceProcessor(model_proto=without_dummy_prefix(file_bytes))

    def with_controls(self, names: Sequence[str]) -> SentencePieceTokenizer:
        return SentencePieceTokenizer(with_control_tokens(self.file_bytes, names))

    def _value(self, i: int, piece: str) -> bytes:
        if self._model.is_control(i):
            return b""
        if self._model.is_unknown(i):
            return REPLACEMENT
        if self._model.is_byte(i):
            return bytes([int(piece[3:5], 16)])  # '<0xE2>'
        return piece.replace(SPACE_MARK, " ").encode()

    def decode(self, ids: Iterable[int]) -> str:
        text = super().decode(ids)
        return text.removesuffix(" ") if self._suffix else text

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        # Long documents are cut where no token can cross, so that several threads can share one document.
        segments = [self._segments(text) for text in texts]
        first = self._encode([parts[0] for parts in segments], self._model)
        rest = iter(self._encode([part for parts in segments for part in parts[1:]], self._continued))
        return [self._join([ids, *(next(rest) for _ in parts[1:])], parts) for ids, parts in zip(first, segments)]

    def _encode(self, texts: list[str], model: sentencepiece.SentencePieceProcessor) -> list[list[int]]:
        return model.encode([text.encode() for text in texts], num_threads=self.threads) if texts else []

    def _segments(self, text: str) -> list[str]:
        """Splits `text` at each literal '▁', and after newlines if that does not change the ids."""
        parts = re.split(f"({SPACE_MARK})", text) if self.lossless and SPACE_MARK in text else [text]
        if self._cut:
            parts = [piece for part in parts for piece in _cut_after_newlines(part, SEGMENT)]
        return parts

    def _join(self, ids: list[list[int]], parts: list[str]) -> np.ndarray:
        if len(parts) == 1:
            return np.asarray(ids[0], np.int32)
        ids = [self._space_mark_ids if part == SPACE_MARK else i for i, part in zip(ids, parts)]
        return np.concatenate([np.asarray(i, np.int32) for i in ids])


def _cut_after_newlines(text: str, size: int) -> list[str]:
    """Splits `text` into parts of about `size` characters or more, each cut before the first character of a line."""
    parts, start = [], 0
    while len(text) - start > size and (found := _GOES_ON.search(text, start + size)):
        parts.append(text[start : found.end() - 1])
        start = found.end() - 1
    return [*parts, text[start:]] if parts else [text]
