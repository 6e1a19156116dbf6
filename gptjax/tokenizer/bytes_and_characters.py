"""Tokenizers that need no training: one token per byte, or per character of an alphabet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptjax.tokenizer.interface import CONTROL_TOKENS, REPLACEMENT, Tokenizer


class ByteTokenizer(Tokenizer):
    """One token per UTF-8 byte, after the control tokens (as ByT5, arXiv:2105.13626)."""

    kind = "byte"
    file_name = "tokenizer.json"

    def __init__(self, control_tokens: Sequence[str] = CONTROL_TOKENS, more_control_tokens: Sequence[str] = ()):
        self._controls, self._more = tuple(control_tokens), tuple(more_control_tokens)
        self._first = len(control_tokens)
        super().__init__(
            _json_bytes(kind=self.kind, control_tokens=control_tokens, **_more(more_control_tokens)),
            [b"" for _ in control_tokens] + [bytes([byte]) for byte in range(256)] + [b"" for _ in more_control_tokens],
            _control_ids(control_tokens, 256, more_control_tokens),
        )

    def with_controls(self, names: Sequence[str]) -> ByteTokenizer:
        return ByteTokenizer(self._controls, (*self._more, *names))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + self._first for text in texts]


class CharacterTokenizer(Tokenizer):
    """One token per character of a fixed alphabet, after the control tokens; all other characters become <unk>."""

    kind = "char"
    file_name = "tokenizer.json"
    lossless = False

    def __init__(
        self,
        characters: str,
        control_tokens: Sequence[str] = CONTROL_TOKENS,
        more_control_tokens: Sequence[str] = (),
    ):
        self._characters, self._controls, self._more = characters, tuple(control_tokens), tuple(more_control_tokens)
        values = [REPLACEMENT if name == "<unk>" else b"" for name in control_tokens]
        super().__init__(
            _json_bytes(
                kind=self.kind, control_tokens=control_tokens, characters=characters, **_more(more_control_tokens)
            ),
            values + [c.encode() for c in characters] + [b"" for _ in more_control_tokens],
            _control_ids(control_tokens, len(characters), more_control_tokens),
        )
        code_points = np.array([ord(c) for c in characters], np.int64)
        # The last entry stands for all higher code points.
        self._id_of = np.full(code_points.max(initial=0) + 2, self.unk_id, np.int32)
        self._id_of[code_points] = np.arange(len(code_points)) + len(control_tokens)

    def with_controls(self, names: Sequence[str]) -> CharacterTokenizer:
        return CharacterTokenizer(self._characters, self._controls, (*self._more, *names))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        last = len(self._id_of) - 1
        code_points = (np.frombuffer(text.encode("utf-32-le"), "<u4") for text in texts)
        return [self._id_of[np.minimum(points, last)] for points in code_points]


def _control_ids(first: Sequence[str], texts: int, more: Sequence[str]) -> dict[str, int]:
    """name → id: some control tokens come before the tokens of text, and further ones after them."""
    return {name: i for i, name in enumerate([*first, *(None for _ in range(texts)), *more]) if name is not None}


def _more(names: Sequence[str]) -> dict[str, list[str]]:
    """A field of the file, which only a tokenizer with further control tokens has."""
    return {"more_control_tokens": list(names)} if names else {}


def _json_bytes(**fields: Any) -> bytes:
    return (json.dumps(fields, ensure_ascii=True, indent=1) + "\n").encode()
