"""Text at hand: .txt, .md and .py files, records of .jsonl(.gz) and .parquet, the running Python's own source."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import sysconfig
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.documents import Document
from gptjax.corpus.sources import KEPT, UNREADABLE, Piece

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".jsonl.gz", ".parquet")
ENCODING_ERRORS = ("replace", "skip", "error")
OPTIONS = {
    "encoding_errors": "replace",  # what to do with text that is not UTF-8: replace | skip | error
    "text_field": "text",  # where records hold their text
    "separator": "",  # stands between the documents of a .txt, .md or .py file; none: a file is one document
}
PARQUET_ROWS = 64  # read at once
BLOCK = 1 << 20  # bytes read at once of a file with separators
STANDARD_LIBRARY = "python-stdlib"
# Tests are most of the library's bytes and little of its prose; the rest is not the library's.
STANDARD_LIBRARY_LEAVES_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


# --- What there is ----------------------------------------------------------------------------------------------------


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The files behind `path`, each once, sorted by name within a folder.

    Folders are walked through symbolic links; hidden names and other suffixes are not looked at. `path` may name a
    file, a folder, 'python-stdlib' (without its tests), or several of them, with commas between.

    Raises:
      ConfigError: one does not exist, or is a file of another kind; an option cannot work.
    """
    if options["encoding_errors"] not in ENCODING_ERRORS:
        raise ConfigError(
            f"encoding_errors = {options['encoding_errors']!r}: expected one of {', '.join(ENCODING_ERRORS)}"
        )
    pieces: dict[str, Piece] = {}  # by real path
    for name in path.split(","):
        for file, uri in _candidates(name):
            state = file.stat()
            version = f"{state.st_mtime_ns}"
            pieces.setdefault(os.path.realpath(file), Piece(uri, state.st_size, version, {"path": str(file)}))
    return list(pieces.values())


def _candidates(name: str) -> Iterator[tuple[Path, str]]:
    """(file, uri) of one name."""
    if name == STANDARD_LIBRARY:
        root = Path(sysconfig.get_path("stdlib"))
        for path in _walk(root, leave_out=STANDARD_LIBRARY_LEAVES_OUT):
            if path.suffix == ".py":
                yield path, f"{STANDARD_LIBRARY}/{path.relative_to(root).as_posix()}"
    elif os.path.isdir(name):
        for path in _walk(Path(name)):
            if path.name.lower().endswith(SUFFIXES):
                yield path, path.as_posix()
    elif os.path.isfile(name):
        if not name.lower().endswith(SUFFIXES):
            raise ConfigError(f"{name!r}: a file must end in one of {' '.join(SUFFIXES)}")
        yield Path(name), name
    else:
        raise ConfigError(f"{name!r}: no such file or folder (or {STANDARD_LIBRARY!r} for Python's own source)")


def _walk(folder: Path, leave_out: set[str] = frozenset(), above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files below `folder` in sorted order; a folder inside itself, by way of a link, is passed over."""
    above = (*above, os.path.realpath(folder))
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.name.startswith(".") or path.name in leave_out:
            continue
        if path.is_dir():
            if os.path.realpath(path) not in above:
                yield from _walk(path, leave_out, above)
        elif path.is_file():
            yield path


# --- Its documents ----------------------------------------------------------------------------------------------------


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The documents of one file, up to the point where it cannot be read any further.

    A .txt, .md or .py file is one document, or several where a separator stands between them; a record is one.

    Raises:
      ConfigError: text that is not UTF-8, where `encoding_errors` is 'error'.
    """
    path = Path(piece.options["path"])
    for place, raw in _records(path, options, skipped):
        uri = f"{piece.uri}:{place}" if place else piece.uri
        if (text := _text(raw, uri, options["encoding_errors"], skipped)) is not None:
            yield Document(text, uri)


def _records(path: Path, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    """(number, undecoded text) of each record; number 0 where the file is one."""
    import pyarrow

    name = path.name.lower()
    try:
        if name.endswith((".jsonl", ".jsonl.gz")):
            yield from _json_lines(path, options, skipped)
        elif name.endswith(".parquet"):
            yield from _parquet_rows(path, options["text_field"], skipped)
        elif options["separator"]:
            yield from _separated(path, options["separator"].encode())
        else:
            yield 0, path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        skipped[f"{UNREADABLE}truncated or corrupt gzip"] += 1
    except pyarrow.ArrowException:
        skipped[f"{UNREADABLE}corrupt parquet"] += 1
    except OSError as error:
        # pyarrow reports some corruption as an OSError without a number.
        skipped[UNREADABLE + ("corrupt parquet" if error.errno is None else type(error).__name__)] += 1


def _separated(path: Path, separator: bytes) -> Iterator[tuple[int, bytes]]:
    rest, number = b"", 1
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            *records, rest = (rest + block).split(separator)
            for record in records:
                yield number, record
                number += 1
    if rest:
        yield number, rest


def _json_lines(path: Path, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    field = options["text_field"]
    with open(path, "rb") as stream:
        lines = gzip.GzipFile(fileobj=stream) if path.name.lower().endswith(".gz") else stream
        for number, line in enumerate(lines, 1):
            decoded = _decode(line, f"{path}:{number}", options["encoding_errors"], skipped) if line.strip() else None
            if decoded is None:
                continue
            try:
                record = json.loads(decoded)
            except (ValueError, RecursionError):
                skipped[f"{UNREADABLE}broken JSON line"] += 1
                continue
            text = record.get(field) if isinstance(record, dict) else None
            if isinstance(text, str):
                # JSON can escape half a surrogate pair, which is no more UTF-8 than a stray byte.
                yield number, text.encode("utf-8", "surrogatepass")
            else:
                skipped[f"no text in field {field!r}"] += 1


def _parquet_rows(path: Path, field: str, skipped: Counter[str]) -> Iterator[tuple[int, bytes]]:
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        kinds = {column.name: column.type for column in table.schema_arrow}
        if kinds.get(field) not in (pyarrow.string(), pyarrow.large_string()):
            skipped[f"no text in field {field!r}"] += 1
            return
        number = 1
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=[field]):
            # As bytes: what a string column holds is not always UTF-8.
            for raw in batch.column(0).cast(pyarrow.large_binary()).to_pylist():
                if raw is None:
                    skipped[f"no text in field {field!r}"] += 1
                else:
                    yield number, raw
                number += 1


def _text(raw: bytes, uri: str, encoding_errors: str, skipped: Counter[str]) -> str | None:
    """The record's text, or None where it is counted as skipped."""
    if not raw or raw == codecs.BOM_UTF8:
        skipped["empty"] += 1
    elif b"\0" in raw:
        skipped[f"{UNREADABLE}NUL bytes: not a text"] += 1
    else:
        return _decode(raw.removeprefix(codecs.BOM_UTF8), uri, encoding_errors, skipped)
    return None


def _decode(raw: bytes, uri: str, encoding_errors: str, skipped: Counter[str]) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if encoding_errors == "error":
            raise ConfigError(
                f"{uri}: not UTF-8 at byte {error.start} ({error.reason}); encoding_errors = replace or skip goes on"
            ) from error
        if encoding_errors == "skip":
            skipped[f"{UNREADABLE}not UTF-8"] += 1
            return None
        skipped[f"{KEPT}bytes that are not UTF-8 became U+FFFD"] += 1
        return raw.decode("utf-8", errors="replace")
