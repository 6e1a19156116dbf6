"""Text files: .txt, .md and .py, records of .jsonl, .json and .parquet, the running Python's own source."""

from __future__ import annotations

import os
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.documents import BLANK, Document, is_blank
from gptjax.corpus.formats import encoding
from gptjax.corpus.sources import KEPT, UNREADABLE, Piece, begins, skip
from gptjax.corpus.sources.columns import arrow_errors, column_names, parquet_batches, rows
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.opening import bare_name, find_files, once, open_file, open_stream
from gptjax.corpus.sources.records import decode, json_values, parts, split
from gptjax.corpus.sources.streams import Stream, counted

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".json", ".parquet")
ENCODING_ERRORS = ("detect", "replace", "skip", "error")
OPTIONS = {
    # For text that is not UTF-8 and has no mark: detect its encoding | replace (by U+FFFD) | skip | error.
    "encoding_errors": "detect",
    "text_field": "text",  # the field of a record that holds its text
    "separator": "",  # separates the documents of a .txt, .md or .py file; none: a file is one document
    **READING,
}
_NO_TEXT = "no text in field {!r}"
STANDARD_LIBRARY = "python-stdlib"
# Tests are most of the library's bytes and little of its prose; the others do not belong to the library.
STANDARD_LIBRARY_LEAVES_OUT = ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__")


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The files of `path`, as opening.find_files finds them; 'python-stdlib' is allowed, too.

    Raises:
      ConfigError: one does not exist, or is a file of another kind; an option is invalid.
    """
    if options["encoding_errors"] not in ENCODING_ERRORS:
        raise ConfigError(
            f"encoding_errors = {options['encoding_errors']!r}: expected one of {', '.join(ENCODING_ERRORS)}"
        )
    pieces: list[Piece] = []
    for name in path.split(","):
        pieces += (
            _standard_library() if name == STANDARD_LIBRARY else find_files(name, SUFFIXES, links=options["links"])
        )
    return once(pieces)


def _standard_library() -> Iterator[Piece]:
    root = sysconfig.get_path("stdlib")
    for piece in find_files(root, (".py",), STANDARD_LIBRARY_LEAVES_OUT):
        uri = f"{STANDARD_LIBRARY}/{os.path.relpath(piece.uri, root)}"
        yield Piece(uri, piece.size, piece.version, {"path": piece.uri})


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    detectors = encoding.DETECTORS if options["encoding_errors"] == "detect" else ()
    return (*detectors, "pyarrow") if bare_name(uri).endswith(".parquet") else detectors


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The documents of one file, up to the point where it cannot be read any further.

    A .txt, .md or .py file is one document, or several if there is a separator; a record is one document.

    Raises:
      ConfigError: text that is not UTF-8, if `encoding_errors` is 'error'.
    """
    with counted(skipped):
        for place, raw in _records(piece.options.get("path", piece.uri), options, skipped):
            uri = f"{piece.uri}:{place}" if place else piece.uri
            if begins(skipped, uri) and (text := _text(raw, uri, options["encoding_errors"], skipped)) is not None:
                yield Document(text, uri)


def _records(path: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    """(number, undecoded text) of each record; number 0 if the file is one document."""
    name = bare_name(path)
    if name.endswith((".jsonl", ".json")):
        yield from _json_records(path, options, skipped)
    elif name.endswith(".parquet"):
        yield from _parquet_rows(path, options, skipped)
    else:
        with open_stream(path, options) as stream:
            if options["separator"]:
                yield from split(stream, options["separator"].encode(), options, skipped)
            else:
                yield from _whole(stream, options["max_document_bytes"], skipped)


def _whole(stream: Stream, most: int, skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    """One record, or parts of a record that is too long for memory."""
    for number, raw in enumerate(parts(stream, most), 1):
        if number == 2:
            skipped[f"{KEPT}files of more than {most:,} bytes became several documents"] += 1
        yield (number if number > 1 else 0), raw


def _json_records(path: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    for number, value in json_values(path, options, skipped):
        text = value.get(options["text_field"]) if isinstance(value, dict) else None
        if isinstance(text, str):
            # JSON can escape a lone surrogate, which is not valid UTF-8 either.
            yield number, text.encode("utf-8", "surrogatepass")
        else:
            has = _listed(value) if isinstance(value, dict) else "no fields"
            skip(skipped, _NO_TEXT.format(options["text_field"]), f"{path}:{number}, which has {has}")


def _parquet_rows(path: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    field, has = options["text_field"], ""
    with arrow_errors(path), open_file(path) as file:
        for number, row in enumerate(rows(parquet_batches(file, [field])), 1):
            if isinstance(text := row.get(field), bytes):
                yield number, text
            else:
                has = has or _listed(column_names(path))
                skip(skipped, _NO_TEXT.format(field), f"{path}:{number}, which has {has}")


def _listed(fields: Iterable[str]) -> str:
    return textwrap.shorten(", ".join(map(str, fields)) or "no fields", 200, placeholder=" …")


def _text(raw: bytes, uri: str, encoding_errors: str, skipped: Counter[str]) -> str | None:
    """The record's text, or None if it was counted as skipped."""
    text = decode(raw, uri, encoding_errors, skipped)
    if text is None:
        return None
    if "\0" in text:
        skipped[f"{UNREADABLE}NUL bytes: not a text"] += 1
    elif is_blank(text):
        skipped[BLANK] += 1
    else:
        return text
    return None
