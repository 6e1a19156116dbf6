"""Converts text to token ids and back, with one interface for SentencePiece models, bytes and characters.

Every tokenizer made here begins with the same control tokens (`CONTROL_TOKENS`). No text encodes to a control token,
and control tokens decode to nothing.
"""

from __future__ import annotations

import abc
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import xxhash

from gptjax.config import ConfigError
from gptjax.data.prepared import MANIFEST, SOURCE_PREFIX, read_manifest
from gptjax.files import write_aside
from gptjax.paths import local_path
from gptjax.tokenizer.sentencepiece_file import settings, with_control_tokens, without_dummy_prefix

CONTROL_TOKENS = (
    *("<unk>", "<s>", "</s>", "<pad>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"),  # turns of a chat
)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
SPACE_MARK = "\u2581"  # '▁': SentencePiece represents a space by it
_GOES_ON = re.compile("\n[^\n]")  # a newline, and the first character of the next line
SEGMENT = 1 << 12  # characters that SentencePiece encodes at once; short segments stay in the CPU's cache


class Tokenizer(abc.ABC):
    """Converts text to token ids and back. If the tokenizer is lossless, `decode(encode(text)) == text`.

    Attributes:
      kind: 'bpe', 'unigram', 'byte' or 'char'; a SentencePiece model may also be 'word'.
      lossless: whether every text is decoded exactly.
      vocab_size: V.
      unk_id, bos_id, eos_id, pad_id: ids, or `None` if the vocabulary has no such token.
      control_ids: name → id of every control token.
      hash: the hash of the file that `save` writes; equal hashes mean equal ids.
      libraries: the libraries whose versions may change the ids.
      threads: how many threads encoding may use; by default one per core.
    """

    kind: str
    file_name: str
    lossless = True
    libraries: tuple[str, ...] = ()
    first_bytes = b""  # bytes that the tokenizer adds before a text; `decode` removes them

    def __init__(self, file_bytes: bytes, token_values: list[bytes], control_ids: dict[str, int]):
        self._file_bytes = file_bytes
        self._token_values = token_values
        self.vocab_size = len(token_values)
        self.control_ids = control_ids
        self.unk_id, self.bos_id, self.eos_id, self.pad_id = map(control_ids.get, CONTROL_TOKENS[:4])
        self.hash = xxhash.xxh3_128_hexdigest(file_bytes)
        self.threads = os.cpu_count() or 1

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns one array of ids per text, in order; in parallel if that helps this kind of tokenizer."""

    @abc.abstractmethod
    def with_controls(self, names: Sequence[str]) -> Tokenizer:
        """Returns the tokenizer with these control tokens after all of its own; see `extended`."""

    def extended(self, names: Iterable[str]) -> Tokenizer:
        """Returns a tokenizer that has these control tokens, too; the ids of all others and of every text stay.

        Raises:
          ConfigError: a name is that of a token of text, which a text could contain.
        """
        missing = [name for name in dict.fromkeys(names) if name not in self.control_ids]
        for name in missing:
            if name.encode() in self._token_values:
                raise ConfigError(f"tokenizer: {name!r} is a token of text, so it cannot be a control token")
        return self.with_controls(missing) if missing else self

    def extends(self, other: Tokenizer) -> bool:
        """Whether this is the other tokenizer, or that one with further control tokens."""
        added = [
            name for name, i in sorted(self.control_ids.items(), key=lambda item: item[1]) if i >= other.vocab_size
        ]
        return self.hash == (other.with_controls(added) if added else other).hash

    def encode(self, text: str) -> list[int]:
        """Returns the ids of one text, without BOS or EOS. Raises UnicodeEncodeError for a lone surrogate."""
        return self.encode_batch([text])[0].tolist()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes that the ids stand for; they may begin or end within a character."""
        return b"".join([self._token_values[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text that the ids stand for; bytes that are not a character become U+FFFD."""
        return self.decode_bytes(ids).removeprefix(self.first_bytes).decode("utf-8", errors="replace")

    def token_bytes(self) -> np.ndarray:
        """Returns int32 [V]: the number of UTF-8 bytes of each token; 0 for control tokens, 1 for the unknown token."""
        lengths = np.array([len(value) for value in self._token_values], np.int32)
        if self.unk_id is not None:
            lengths[self.unk_id] = 1
        return lengths

    def save(self, folder: str | Path, prefix: str = "") -> Path:
        """Writes the tokenizer's file into `folder`, atomically, and returns its path. prefix: of the file's name."""
        path = Path(folder) / f"{prefix}{self.file_name}"
        with write_aside(path) as file:
            file.write(self._file_bytes)
        return path


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
        return SentencePieceTokenizer(with_control_tokens(self._file_bytes, names))

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


FILE_NAMES = (SentencePieceTokenizer.file_name, ByteTokenizer.file_name)  # in a folder


def load(path: str | Path) -> Tokenizer:
    """Loads the tokenizer of a prepared folder, of a run, or of a file (a SentencePiece model or gptjax's JSON).

    Raises:
      ConfigError: there is no tokenizer, or its file cannot be read.
    """
    path = local_path(path, "tokenizer")
    if path.is_dir():
        found = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if not found:
            raise ConfigError(f"tokenizer: {path} holds neither tokenizer.model nor tokenizer.json")
        made = _load_file(found[0])
        if (path / MANIFEST).exists():
            _check_manifest_is_of(made, path)
        return made
    return _load_file(path)


def load_of_sources(folder: str | Path) -> Tokenizer | None:
    """Loads the separate tokenizer of the sources of pairs from a prepared folder or a run; None if there is none.

    Raises:
      ConfigError: its file cannot be read.
    """
    names = (f"{SOURCE_PREFIX}{name}" for name in FILE_NAMES)
    found = [path for name in names if (path := local_path(folder, "tokenizer") / name).is_file()]
    return _load_file(found[0]) if found else None


def _check_manifest_is_of(made: Tokenizer, folder: Path) -> None:
    """Raises ConfigError if the manifest of a prepared folder describes a tokenizer other than the folder's."""
    saved = read_manifest(folder)["tokenizer"]
    facts = {"kind": made.kind, "vocab_size": made.vocab_size, "hash": made.hash, "eos_id": made.eos_id}
    for field, value in facts.items():
        if saved[field] != value:
            raise ConfigError(
                f"{folder / MANIFEST}: tokenizer.{field} = {saved[field]!r}, but the folder's tokenizer has {value!r}: "
                "prepare the folder again"
            )
    if saved["begin_id"] not in (made.eos_id, made.bos_id):
        raise ConfigError(
            f"{folder / MANIFEST}: tokenizer.begin_id = {saved['begin_id']}: must be the tokenizer's end-of-text token "
            f"{made.eos_id} or its beginning-of-text token {made.bos_id}"
        )


def _load_file(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ConfigError(f"tokenizer: no such file or folder {str(path)!r}")
    file_bytes = path.read_bytes()
    try:
        if path.suffix != ".json":
            return SentencePieceTokenizer(file_bytes)
        fields = json.loads(file_bytes)
        kinds = {"byte": ByteTokenizer, "char": CharacterTokenizer}
        return kinds[fields.pop("kind")](**fields)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"tokenizer: {path} is not a readable tokenizer ({type(error).__name__})") from error


def _control_ids(first: Sequence[str], texts: int, more: Sequence[str]) -> dict[str, int]:
    """name → id: some control tokens come before the tokens of text, and further ones after them."""
    return {name: i for i, name in enumerate([*first, *(None for _ in range(texts)), *more]) if name is not None}


def _more(names: Sequence[str]) -> dict[str, list[str]]:
    """A field of the file, which only a tokenizer with further control tokens has."""
    return {"more_control_tokens": list(names)} if names else {}


def _json_bytes(**fields: Any) -> bytes:
    return (json.dumps(fields, ensure_ascii=True, indent=1) + "\n").encode()


def _cut_after_newlines(text: str, size: int) -> list[str]:
    """Splits `text` into parts of about `size` characters or more, each cut before the first character of a line."""
    parts, start = [], 0
    while len(text) - start > size and (found := _GOES_ON.search(text, start + size)):
        parts.append(text[start : found.end() - 1])
        start = found.end() - 1
    return [*parts, text[start:]] if parts else [text]
