"""Loads a tokenizer from a file or a folder."""

from __future__ import annotations

import json
from pathlib import Path

from gptjax.config import ConfigError
from gptjax.data.prepared import MANIFEST, SOURCE_PREFIX, read_manifest
from gptjax.files.paths import local_path
from gptjax.tokenizer.bytes_and_characters import ByteTokenizer, CharacterTokenizer
from gptjax.tokenizer.huggingface import KIND, from_saved, from_theirs
from gptjax.tokenizer.interface import Tokenizer
from gptjax.tokenizer.sentencepiece_model import SentencePieceTokenizer

FILE_NAMES = (SentencePieceTokenizer.file_name, ByteTokenizer.file_name)  # in a folder


def load(path: str | Path) -> Tokenizer:
    """Loads the tokenizer of a prepared folder, of a run, of a folder of `transformers`, or of a file: a SentencePiece
    model, gptjax's JSON, or a tokenizer.json of Hugging Face with the files that are beside it.

    Raises:
      ConfigError: there is no tokenizer, or its file cannot be read.
    """
    path = local_path(path, "tokenizer")
    if path.is_dir():
        found = [path / name for name in FILE_NAMES if (path / name).is_file()]
        if not found:
            raise ConfigError(f"tokenizer: {path} holds neither tokenizer.model nor tokenizer.json")
        made = _load_file(found[0]) if len(found) == 1 else _of_two(*found)
        if (path / MANIFEST).exists():
            _check_manifest_is_of(made, path)
        return made
    return _load_file(path)


def _of_two(model: Path, theirs: Path) -> Tokenizer:
    """The tokenizer of a folder of `transformers` that holds a SentencePiece model, too: the model, unless tokens were
    added to it, or it is a file of another kind by the same name."""
    made = _load_file(theirs)
    try:
        own = _load_file(model)
    except ConfigError:
        return made
    return own if own.vocab_size >= made.vocab_size else made


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
        if "model" in fields:
            return from_theirs(fields, path.parent)
        if fields["kind"] == KIND:
            return from_saved(fields)
        kinds = {"byte": ByteTokenizer, "char": CharacterTokenizer}
        return kinds[fields.pop("kind")](**fields)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ConfigError(f"tokenizer: {path} is not a readable tokenizer ({type(error).__name__})") from error
