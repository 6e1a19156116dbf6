"""Reads a SentencePiece model's file: its pieces, and the few settings that decide how encoding changes a text.

The file is a protobuf message (sentencepiece_model.proto). It is parsed by the wire format, which never changes
(protobuf.dev/programming-guides/encoding), because the module that SentencePiece ships for it requires the newest
protobuf, which other packages of an environment may not allow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_TRAINER, _NORMALIZER = 2, 3  # fields of ModelProto
_PIECES = 1  # field of ModelProto; its fields: the piece, its score, its type
_CONTROL = bytes([3 << 3, CONTROL])
_WITHOUT_PREFIX = bytes([_NORMALIZER << 3 | 2, 2, 3 << 3, 0])  # a normalizer_spec that holds add_dummy_prefix = false


@dataclass(frozen=True)
class Settings:
    kind: str  # one of KINDS
    rewrites: bool  # characters are normalized, for example by NFKC
    dummy_prefix: bool  # a space is added before the text, or after it
    removes_spaces: bool  # leading, trailing and repeated spaces are removed
    marks_spaces: bool  # tokens contain '▁' for a space
    spaces_are_suffixes: bool  # '▁' is at the end of a word rather than at its beginning


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    type: int  # NORMAL, UNKNOWN …


def settings(file_bytes: bytes) -> Settings:
    """Reads the settings of a valid model file; a setting that the file omits has the format's default."""
    trainer, normalizer = _spec(file_bytes, _TRAINER), _spec(file_bytes, _NORMALIZER)
    return Settings(
        kind=KINDS[trainer.get(3, 1)],
        rewrites=bool(normalizer.get(2)),
        dummy_prefix=bool(normalizer.get(3, True)),
        removes_spaces=bool(normalizer.get(4, True)),
        marks_spaces=bool(normalizer.get(5, True)),
        spaces_are_suffixes=bool(trainer.get(24, False)),
    )


def pieces(file_bytes: bytes) -> list[Piece]:
    """The pieces of a valid model file, in the order of their ids."""
    found = [dict(_fields(value)) for number, value in _fields(file_bytes) if number == _PIECES]
    return [
        Piece(fields[1].decode(), struct.unpack("<f", fields.get(2, bytes(4)))[0], fields.get(3, NORMAL))
        for fields in found
    ]


def without_dummy_prefix(file_bytes: bytes) -> bytes:
    """Returns the model without the space before a text. If a setting is given twice, the last one holds."""
    return file_bytes + _WITHOUT_PREFIX


def with_control_tokens(file_bytes: bytes, names: Iterable[str]) -> bytes:
    """Returns the model with further control tokens, whose ids follow those of all other pieces."""
    pieces = (_field(1, name.encode()) + _CONTROL for name in names)
    return file_bytes + b"".join(_field(_PIECES, piece) for piece in pieces)


def _spec(file_bytes: bytes, number: int) -> dict[int, Any]:
    """The fields of a message within the model; if it is given twice, the last value of a field holds."""
    return {at: value for each, spec in _fields(file_bytes) if each == number for at, value in _fields(spec)}


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes: its key, its length and its value."""
    size, length = len(value), bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + value


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of each field; the value is an integer for a varint field, otherwise bytes."""
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
    """Reads an integer in groups of seven bits, the lowest first; returns it and the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
