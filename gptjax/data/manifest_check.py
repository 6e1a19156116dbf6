"""Checks a manifest before it is used: its fields, sums that must agree, and its own hash.

The hash detects any edit. Fields and sums are checked as well, since a program that writes wrong numbers also writes
their hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xxhash

_ONE_NAME = re.compile(r"[\w.-]+")  # no folders: a manifest names files in its own folder
_INSIDE = re.compile(r"[\w.-]+(/[\w.-]+)*")


def hash_of_manifest(manifest: Mapping[str, Any]) -> str:
    """The xxh3_128 hash of all fields but `hash`, whatever their order and spacing in the file."""
    rest = {name: value for name, value in manifest.items() if name != "hash"}
    return xxhash.xxh3_128_hexdigest(json.dumps(rest, sort_keys=True, ensure_ascii=True).encode())


def check_manifest(manifest: Any, file: str) -> None:
    """Checks one manifest. file: its path, for messages.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    _check(manifest, _MANIFEST, file)
    if manifest["hash"] != (found := hash_of_manifest(manifest)):
        raise ValueError(
            f"{file}: its hash is {found}, but it says {manifest['hash']}: altered; prepare the folder again"
        )
    made = manifest["tokenizer"]
    itemsize = np.dtype(manifest["dtype"]).itemsize
    largest = max(manifest[name]["vocab_size"] for name in ("tokenizer", "source_tokenizer") if name in manifest)
    _agree(f"{file}: dtype", manifest["dtype"], "uint16" if largest <= 1 << 16 else "uint32")
    for field in ("eos_id", "begin_id"):
        if made[field] >= made["vocab_size"]:
            raise ValueError(f"{file}: tokenizer.{field} = {made[field]}: must be below tokenizer.vocab_size")
    for split, section in manifest["splits"].items():
        name = f"{file}: splits.{split}"
        _agree(f"{name}.tokens", section["tokens"], sum(shard["tokens"] for shard in section["shards"]))
        for shard in section["shards"]:
            _agree(f"{name}: the size of {shard['name']}", shard["size"], shard["tokens"] * itemsize)
        if bits := section.get("supervised"):
            _agree(f"{name}: the size of {bits['name']}", bits["size"], -(-section["tokens"] // 8))
        for count in ("documents", "bytes", "tokens"):
            if section.get("sources"):
                in_sources = sum(source[count] for source in section["sources"].values())
                _agree(f"{name}.{count}", section[count], in_sources)


def _agree(what: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise ValueError(f"{what} = {value!r}: must be {wanted!r} to agree with the rest of the manifest")


# --- Fields ---------------------------------------------------------------------------------------------------------
# A dict must have these fields and may have others. A list with one form may have any length.


class DictOf:
    """A dict with any names, whose values all have one form."""

    def __init__(self, form: Any, names: Callable[[str], bool] = bool):
        self.form, self.names = form, names


class Optional:
    """A field that may be absent."""

    def __init__(self, form: Any):
        self.form = form


def _is_count(value: Any) -> str | None:
    return None if type(value) is int and 0 <= value < 1 << 63 else "an integer of at least 0"


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) else "a string"


def _is_bool(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _is_dict(value: Any) -> str | None:
    return None if isinstance(value, dict) else "an object"


def _is_hash(value: Any) -> str | None:
    return None if isinstance(value, str) and re.fullmatch(r"[0-9a-f]+", value) else "hexadecimal digits"


def _is_dtype(value: Any) -> str | None:
    return None if value in ("uint16", "uint32") else "uint16 or uint32"


def _is_form(value: Any) -> str | None:
    forms = ("text", "pairs", "labelled", "preferences", "conversations", "chat_preferences")
    return None if value in forms else f"one of {', '.join(forms)}"


def _is_name(value: Any) -> str | None:
    fits = isinstance(value, str) and _ONE_NAME.fullmatch(value) and value not in (".", "..")
    return None if fits else "the name of a file in this folder"


def _is_inside(value: Any) -> str | None:
    fits = isinstance(value, str) and _INSIDE.fullmatch(value) and not {".", ".."} & set(value.split("/"))
    return None if fits else "the path of a file inside this folder"


def _is_change(value: Any) -> str | None:
    fits = value is None or (isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value))
    return None if fits else "two strings, or null"


_FILE = {"name": _is_name, "size": _is_count, "hash": _is_hash}
_COUNTS = {"documents": _is_count, "bytes": _is_count, "tokens": _is_count}
_TOKENIZER = {
    "kind": _is_text,
    "vocab_size": _is_count,
    "hash": _is_hash,
    "eos_id": _is_count,
    "begin_id": _is_count,
    "lossless": _is_bool,
    "change": _is_change,
    "file": _FILE,
}
_MANIFEST = {
    "format": _is_count,
    "hash": _is_hash,
    "dtype": _is_dtype,
    "splits": DictOf(
        {
            **_COUNTS,
            "shards": [{**_FILE, "tokens": _is_count}],
            "offsets": _FILE,
            "origins": Optional(_FILE),
            "sources": Optional(DictOf(_COUNTS)),
            "pairs": Optional(_FILE),
            "labels": Optional(_FILE),
            "supervised": Optional({**_FILE, "tokens": _is_count}),
            "unknown_tokens": _is_count,
            "changed_documents": Optional(_is_count),
        },
        names=("train", "validation", "test").__contains__,
    ),
    "form": Optional(_is_form),
    "labels": Optional([_is_text]),
    "template": Optional(_is_dict),
    "tokenizer": _TOKENIZER,
    "source_tokenizer": Optional(_TOKENIZER),
    "sources": Optional([{"name": _is_text, "kind": _is_text}]),
    "parts": Optional([{"source": _is_text, "name": _is_inside, "size": _is_count, "hash": _is_hash}]),
    "stages": Optional(DictOf({"version": _is_count, "options": _is_dict})),
    "skipped": Optional(DictOf(_is_count)),
    "skipped_at": Optional(DictOf([_is_text])),
    "texts_of_labels": Optional(DictOf(DictOf(_is_count))),
    "options": _is_dict,
    "versions": DictOf(_is_text),
}


def _check(value: Any, form: Any, name: str) -> None:
    if isinstance(form, dict):
        _require(value, _is_dict, name)
        for field, inner in form.items():
            optional, inner = isinstance(inner, Optional), inner.form if isinstance(inner, Optional) else inner
            if field in value:
                _check(value[field], inner, _joined(name, field))
            elif not optional:
                raise ValueError(f"{_joined(name, field)}: is missing")
    elif isinstance(form, DictOf):
        _require(value, _is_dict, name)
        for field, inner in value.items():
            if not form.names(field):
                raise ValueError(f"{_joined(name, field)}: unknown name")
            _check(inner, form.form, _joined(name, field))
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{name} = {value!r}: must be a list")
        for number, inner in enumerate(value):
            _check(inner, form[0], f"{name}[{number}]")
    else:
        _require(value, form, name)


def _require(value: Any, allowed: Callable[[Any], str | None], name: str) -> None:
    if wanted := allowed(value):
        raise ValueError(f"{name} = {str(value)[:60]!r}: must be {wanted}")


def _joined(name: str, field: str) -> str:
    """'FILE: field', then 'FILE: field.inner'."""
    return f"{name}.{field}" if ": " in name else f"{name}: {field}"
