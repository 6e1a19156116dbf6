"""Readers of data files: each turns a file into rows, which have named values.

  jsonl      a JSON object per line                       values: the object's
  csv, tsv   a table; csv with a header, tsv with the     values: named by the columns
             card's `columns` or else with a header
  squad      SQuAD 1.1's JSON                             values: title, context, question, id, answers (a list)
  hellaswag  HellaSwag as text, six lines per item        values: context, label, endings (a list)
  gsm8k      GSM8K's jsonl                                values: question, answer, reasoning, number (after ####)
  lines      plain text                                   values: line

Files may be compressed (.gz, .bz2, .xz), or be in a zip archive: data.zip!folder/file.jsonl.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xxhash

from gptjax.errors import ConfigError

OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
IN_ZIP = "!"
HELLASWAG_LINES = 6
GSM8K_MARK = "####"


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
      number: the number of its line or question, from 1.
      known_as: the ids under which a corpus's contamination report lists it (corpus/contamination/evaluations.py).
    """

    number: int
    values: dict[str, Any]
    known_as: tuple[str, ...]


class BadRow(Exception):
    """A row cannot be read. The message begins with its number."""


def read_rows(place: str, reader: str, columns: Sequence[str]) -> tuple[list[Row], str]:
    """The rows of a file, and the hash of its bytes.

    Args:
      place: a path, or ARCHIVE.zip!NAME.
      columns: names of a tsv's columns, if it has no header.

    Raises:
      ConfigError: the file does not have the reader's format.
    """
    data = _content(place)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place}: is not UTF-8 text (byte {error.start + 1:,})") from None
    try:
        rows = list(READERS[reader](text, _bare_name(place), columns))
    except BadRow as error:
        raise ConfigError(f"{place}, {error}") from None
    if not rows:
        raise ConfigError(f"{place}: has no rows")
    return rows, xxhash.xxh3_64_hexdigest(data)


def members_in(place: str) -> dict[str, str]:
    """The text that * matches → the place of that file, in the order of names; {'': place} without a *."""
    if "*" not in place:
        return {"": place}
    before, _, after = place.partition("*")
    archive, _, name = place.rpartition(IN_ZIP)
    if archive and "*" in name:
        names = [f"{archive}{IN_ZIP}{each}" for each in _opened_zip(Path(archive)).namelist()]
    else:
        pattern = Path(place.partition(IN_ZIP)[0])
        names = [str(path) for path in pattern.parent.glob(pattern.name)]
    found = {each[len(before) : len(each) - len(after)]: each for each in sorted(names) if each.endswith(after)}
    return {member: each for member, each in found.items() if member and each.startswith(before) and "/" not in member}


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read as a zip archive ({error})") from None


def _content(place: str) -> bytes:
    archive, _, name = place.rpartition(IN_ZIP)
    path = Path(archive or place)
    try:
        if archive:
            with _opened_zip(path) as file:
                return file.read(name)
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            return file.read()
    except KeyError:
        raise ConfigError(f"{path}: the archive has no file {name!r}") from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
        raise ConfigError(f"{place}: cannot be read ({error})") from None


def _bare_name(place: str) -> str:
    path = Path(place.rpartition(IN_ZIP)[2])
    return (path.stem if path.suffix in OPENERS else path.name).lower()


# --- The formats ------------------------------------------------------------------------------------------------------


def _jsonl(text: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"row {number}: is not JSON ({error})") from None
        if not isinstance(values, dict):
            raise BadRow(f"row {number}: must be a JSON object, and is {line[:40]}")
        yield Row(number, values, (str(values.get("id", f"{name}:{number}")),))


def _table(text: str, name: str, columns: Sequence[str], delimiter: str, quoting: Literal[0, 3]) -> Iterator[Row]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    try:
        names = list(columns) or next(rows, [])
        for number, cells in enumerate(rows, 1):
            if not cells:
                continue
            if len(cells) < len(names):
                raise BadRow(f"row {number}: has {len(cells)} columns, and needs {len(names)} ({', '.join(names)})")
            yield Row(number, dict(zip(names, cells)), (f"{name}:{number}",))
    except csv.Error as error:
        raise BadRow(f"line {rows.line_num}: {error}") from None


def _csv(text: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    yield from _table(text, name, columns, ",", csv.QUOTE_MINIMAL)


def _tsv(text: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    yield from _table(text, name, columns, "\t", csv.QUOTE_NONE)


def _squad(text: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    try:
        for article in json.loads(text)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    values = {
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": question["question"],
                        "id": str(question["id"]),
                        "answers": [answer["text"] for answer in question.get("answers", ())],
                    }
                    yield Row(number, values, (values["id"],))
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise BadRow(f"question {number}: is not SQuAD 1.1's JSON ({type(error).__name__}: {error})") from None


def _hellaswag(text: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    lines = text.removesuffix("\n").split("\n")
    if len(lines) % HELLASWAG_LINES:
        raise BadRow(f"line {len(lines)}: {len(lines)} lines are not a multiple of {HELLASWAG_LINES}")
    for first in range(0, len(lines), HELLASWAG_LINES):
        context, label, *endings = lines[first : first + HELLASWAG_LINES]
        known_as = tuple(f"{name}:{first + 1 + k}" for k in range(HELLASWAG_LINES))
        yield Row(first // HELLASWAG_LINES + 1, {"context": context, "label": label, "endings": endings}, known_as)


def _gsm8k(text: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    for row in _jsonl(text, name, columns):
        answer = row.values.get("answer")
        if not isinstance(answer, str) or GSM8K_MARK not in answer:
            raise BadRow(f"row {row.number}: has no field 'answer' with {GSM8K_MARK} before the number")
        reasoning, _, number = answer.rpartition(GSM8K_MARK)
        yield Row(row.number, {**row.values, "reasoning": reasoning.strip(), "number": number.strip()}, row.known_as)


def _lines(text: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield Row(number, {"line": line}, (f"{name}:{number}",))


READERS: dict[str, Callable[[str, str, Sequence[str]], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "squad": _squad,
    "hellaswag": _hellaswag,
    "gsm8k": _gsm8k,
    "lines": _lines,
}
