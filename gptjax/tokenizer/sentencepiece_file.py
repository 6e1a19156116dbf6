"""What a SentencePiece model's file says of itself: the few settings that decide what encoding does to a text.

The file is a protobuf message (sentencepiece_model.proto). It is read by the wire format, which never changes
(protobuf.dev/programming-guides/encoding): the module that SentencePiece ships for it works with the newest protobuf
alone, which other packages of an environment may not allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_TRAINER, _NORMALIZER = 2, 3  # fields of ModelProto
_WITHOUT_PREFIX = bytes([_NORMALIZER << 3 | 2, 2, 3 << 3, 0])  # a normalizer_spec that holds add_dummy_prefix = false


@dataclass(frozen=True)
class Settings:
    kind: str  # one of KINDS
    rewrites: bool  # characters are normalised, as by NFKC
    dummy_prefix: bool  # a space is put before a text, or behind it
    removes_spaces: bool  # that lead, trail, or follow a space
    marks_spaces: bool  # a space is '▁' within tokens
    spaces_are_suffixes: bool  # … at the end of a word


def settings(file_bytes: bytes) -> Settings:
    """Of a model that SentencePiece could load; where the file is silent, the format's own defaults."""
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(file_bytes):
        if number in (_TRAINER, _NORMALIZER):
            (trainer if number == _TRAINER else normalizer).update(_fields(value))
    return Settings(
        kind=KINDS[trainer.get(3, 1)],
        rewrites=bool(normalizer.get(2)),
        dummy_prefix=bool(normalizer.get(3, True)),
        removes_spaces=bool(normalizer.get(4, True)),
        marks_spaces=bool(normalizer.get(5, True)),
        spaces_are_suffixes=bool(trainer.get(24, False)),
    )


def without_dummy_prefix(file_bytes: bytes) -> bytes:
    """The same model but for the space that it puts before a text: of a setting given twice, the last one holds."""
    return file_bytes + _WITHOUT_PREFIX


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field: an integer where it is one, else its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire_type = key & 7
        value: int | bytes
        if wire_type == 0:
            value, at = _varint(message, at)
        else:
            size, at = _varint(message, at) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
