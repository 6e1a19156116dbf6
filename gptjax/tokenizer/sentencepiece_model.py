"""Tokenizers that are SentencePiece models: BPE, unigram and others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import sentencepiece

from gptjax.config import ConfigError
from gptjax.tokenizer.interface import CONTROL_TOKENS, REPLACEMENT, Tokenizer
from gptjax.tokenizer.merges import MergeEncoder, can_encode
from gptjax.tokenizer.sentencepiece_file import (
    NORMAL,
    UNUSED,
    USER_DEFINED,
    settings,
    with_control_tokens,
    without_dummy_prefix,
)
from gptjax.tokenizer.sentencepiece_file import pieces as pieces_of
from gptjax.tokenizer.words import WordEncoder, word_pattern

SPACE_MARK = "\u2581"  # '▁': SentencePiece represents a space by it


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
        self._space_mark_ids = [model.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        self._continued = model  # encodes the text after a cut
        if self._prefix:
            self._continued = sentencepiece.SentencePieceProcessor(model_proto=without_dummy_prefix(file_bytes))
        self._fast = self._fast_encoder() if self.lossless and self.kind == "bpe" else None

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

    def _fast_encoder(self) -> MergeEncoder | WordEncoder:
        """The fastest encoder whose ids are those of this BPE model."""
        with_spaces = [replace(piece, text=piece.text.replace(SPACE_MARK, " ")) for piece in pieces_of(self.file_bytes)]
        pattern = word_pattern(piece.text for piece in with_spaces if piece.type in (NORMAL, USER_DEFINED, UNUSED))
        if can_encode(with_spaces):
            return MergeEncoder(with_spaces, pattern)
        return WordEncoder(pattern, self._encode_words, known={SPACE_MARK: self._space_mark_ids})

    def _encode_words(self, words: Sequence[str], threads: int) -> list[list[int]]:
        return self._continued.encode([word.encode() for word in words], num_threads=threads)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._fast is not None:
            return self._fast.ids(list(map(self._begun, texts)), self.threads)
        segments = [self._segments(text) for text in texts]
        first = self._encode([parts[0] for parts in segments], self._model)
        rest = iter(self._encode([part for parts in segments for part in parts[1:]], self._continued))
        return [self._join([ids, *(next(rest) for _ in parts[1:])], parts) for ids, parts in zip(first, segments)]

    def _begun(self, text: str) -> str:
        """The text with the space that some models add before it."""
        return f" {text}" if self._prefix and text and text[0] != SPACE_MARK else text

    def _encode(self, texts: list[str], model: sentencepiece.SentencePieceProcessor) -> list[list[int]]:
        return model.encode([text.encode() for text in texts], num_threads=self.threads) if texts else []

    def _segments(self, text: str) -> list[str]:
        """Splits `text` at each literal '▁' if the model is lossless otherwise."""
        return re.split(f"({SPACE_MARK})", text) if self.lossless and SPACE_MARK in text else [text]

    def _join(self, ids: list[list[int]], parts: list[str]) -> np.ndarray:
        if len(parts) == 1:
            return np.asarray(ids[0], np.int32)
        ids = [self._space_mark_ids if part == SPACE_MARK else i for i, part in zip(ids, parts)]
        return np.concatenate([np.asarray(i, np.int32) for i in ids])
