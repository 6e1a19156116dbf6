"""Rows of tables, JSON, Parquet and two files of lines, plain, compressed or in a zip archive; a cell may be a list.

  corpus.tsv            columns by their names in the first line; or by their numbers from 1, if it has no such line.
                        If no column is named, a first line with the usual names (label and text) is such a line
  corpus.jsonl          fields by their names; translation.fr is a field within a field
  corpus.fr+corpus.en   two files, line by line, as columns 1 and 2 (the layout of Moses)
  dev-v1.1.json         SQuAD's layout: each question is a row of question, context, title, id and answers

Tabs separate the columns of a .tsv or .txt file, without quoting; a .csv file is read as spreadsheets do.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import string
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.formats import encoding
from gptjax.corpus.sources import UNREADABLE, Piece, begins, skip
from gptjax.corpus.sources.archives import is_debris, open_zip, read_member
from gptjax.corpus.sources.columns import arrow_batches, arrow_errors, parquet_batches, rows
from gptjax.corpus.sources.opening import bare_name, find_files, open_file, open_stream
from gptjax.corpus.sources.records import Readable, decode, json_values, lines
from gptjax.corpus.sources.streams import Unreadable

TABLES, RECORDS, COLUMNS = (".tsv", ".txt", ".csv"), (".jsonl", ".json"), (".parquet", ".arrow")
SUFFIXES = (*TABLES, *RECORDS, *COLUMNS, ".zip")
SQUAD = ("question", "context", "answers")  # the fields of each row of SQuAD's layout
USUAL = ("source", "target", "text", "label", *SQUAD)  # columns that are read if none is named

Row = Mapping[str, Any]


# --- Finding files ----------------------------------------------------------------------------------------------------


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The files of `path`, as opening.find_files finds them; two files of lines, FIRST+SECOND, are one piece.

    Raises:
      ConfigError: one does not exist, or is a file of another kind.
    """
    pieces: list[Piece] = []
    for name in path.split(","):
        first, plus, second = name.partition("+")
        if not plus or os.path.exists(name):
            bare = os.path.isfile(name) and not os.path.splitext(bare_name(name))[1]  # a table, if named as a file
            pieces += find_files(name, ("",) if bare else SUFFIXES, links=options["links"])
            continue
        sides = [find_files(side, ("",), links=options["links"]) for side in (first, second)]
        if [len(side) for side in sides] != [1, 1]:
            raise ConfigError(f"{name!r}: each side of the + must be one file")
        (one,), (other,) = sides
        version = f"{one.version}+{other.version}"
        pieces.append(Piece(one.uri, one.size + other.size, version, {"other": other.uri}))
    return pieces


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    return (*encoding.DETECTORS, *(("pyarrow",) if bare_name(uri).endswith(COLUMNS) else ()))


# --- Rows -------------------------------------------------------------------------------------------------------------


def read(
    piece: Piece, names: Sequence[str], options: Mapping[str, Any], skipped: Counter[str], usual: Sequence[str] = ()
) -> Iterator[tuple[str, Row]]:
    """(place, row) of every row of a piece, but those that are left out since the process ended there.

    Args:
      names: the columns to read; none: the usual ones. If all are numbers, the first line of a table is a row.
      options: limits.READING.
      usual: the usual names of the columns, for a table of which no column is named: its first line is a row unless it
        has all of these names, in upper or lower case.

    Raises:
      Unreadable: the rest of the piece cannot be read.
      ConfigError: two files have unequal numbers of lines.
    """
    for place, row in _rows(piece, names, options, skipped, usual):
        if begins(skipped, place):
            yield place, row


def _rows(
    piece: Piece, names: Sequence[str], options: Mapping[str, Any], skipped: Counter[str], usual: Sequence[str]
) -> Iterator[tuple[str, Row]]:
    path = piece.uri
    if "other" in piece.options:
        yield from _two_files(path, piece.options["other"], options, skipped)
    elif bare_name(path).endswith(COLUMNS):
        yield from _columns(path, names)
    elif bare_name(path).endswith(RECORDS):
        yield from _records(path, json_values(path, options, skipped), skipped)
    elif path.lower().endswith(".zip"):
        with open_zip(path) as archive:
            for name in archive.namelist():
                if name.lower().endswith((*TABLES, *RECORDS)) and not is_debris(name):
                    yield from _member(archive, path, name, names, options, skipped, usual)
    else:
        with open_stream(path, options) as stream:
            yield from _table(path, stream, names, options, skipped, usual)


def _two_files(first: str, second: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[str, Row]]:
    with open_stream(first, options) as one, open_stream(second, options) as other:
        sides = lines(one, options, skipped), lines(other, options, skipped)
        pair, ends = [next(side, None) for side in sides], [0, 0]
        while pair[0] or pair[1]:
            ends = [line[0] if line else end for line, end in zip(pair, ends)]
            number = min(line[0] for line in pair if line)
            here = [line[1] for line in pair if line and line[0] == number]
            if len(here) == 2:  # otherwise this line of one side was left out, or the side has ended
                cells = (decode(line, f"{first}:{number}", "detect", skipped).rstrip("\r\n") for line in here)
                yield f"{first}:{number}", dict(zip(("1", "2"), cells))
            pair = [next(side, None) if line and line[0] == number else line for side, line in zip(sides, pair)]
    if ends[0] != ends[1]:
        raise ConfigError(f"{first} has {ends[0]:,} lines and {second} has {ends[1]:,}: pairs need equally many")


def _columns(path: str, names: Sequence[str]) -> Iterator[tuple[str, Row]]:
    wanted = list(dict.fromkeys(part for name in names or USUAL for part in (name, name.partition(".")[0])))
    with arrow_errors(path), open_file(path) as file:
        batches = parquet_batches if bare_name(path).endswith(".parquet") else arrow_batches
        for number, row in enumerate(rows(batches(file, wanted)), 1):
            yield f"{path}:{number}", row


def _records(path: str, values: Iterator[tuple[int, Any]], skipped: Counter[str]) -> Iterator[tuple[str, Row]]:
    for number, value in values:
        if not isinstance(value, dict):
            skip(skipped, f"{UNREADABLE}a line that is not a record", f"{path}:{number}")
        elif _is_squad(value):
            yield from _questions(path, value["data"])
        else:
            yield f"{path}:{number}", value


def _is_squad(value: Mapping[str, Any]) -> bool:
    data = value.get("data")
    return isinstance(data, list) and all(isinstance(one, dict) and "paragraphs" in one for one in data)


def _questions(path: str, articles: list[dict]) -> Iterator[tuple[str, Row]]:
    number = 0
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                number += 1
                more = {"title": article.get("title", ""), "context": paragraph["context"]}
                yield f"{path}:{number}", {**more, **question}


def _member(
    archive: zipfile.ZipFile,
    path: str,
    name: str,
    names: Sequence[str],
    options: Mapping[str, Any],
    skipped: Counter[str],
    usual: Sequence[str],
) -> Iterator[tuple[str, Row]]:
    content = read_member(archive, name, options)
    place = f"{path}/{name}"
    if name.lower().endswith(".json"):
        try:
            value = json.loads(decode(content, place, "detect", skipped))
        except (ValueError, RecursionError):
            raise Unreadable("broken JSON") from None
        yield from _records(place, enumerate(value if isinstance(value, list) else [value], 1), skipped)
    elif name.lower().endswith(".jsonl"):
        yield from _records(place, _json_lines(place, content, options, skipped), skipped)
    else:
        yield from _table(place, io.BytesIO(content), names, options, skipped, usual)


def _json_lines(
    place: str, content: bytes, options: Mapping[str, Any], skipped: Counter[str]
) -> Iterator[tuple[int, Any]]:
    for number, line in lines(io.BytesIO(content), options, skipped):
        try:
            if line.strip():
                yield number, json.loads(line)
        except (ValueError, RecursionError):
            skip(skipped, f"{UNREADABLE}broken JSON line", f"{place}:{number}")


def _table(
    path: str,
    stream: Readable,
    names: Sequence[str],
    options: Mapping[str, Any],
    skipped: Counter[str],
    usual: Sequence[str],
) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(options["max_line_bytes"])
    text = (
        (number, decode(line, path, "detect", skipped).rstrip("\r\n"))
        for number, line in lines(stream, options, skipped)
    )
    table: Iterator[tuple[int, list[str]]]
    if bare_name(path).endswith(".csv"):
        table = enumerate(csv.reader(line + "\n" for _, line in text), 1)
    else:
        table = ((number, line.split("\t")) for number, line in text if line)
    try:
        for first in itertools.islice(table, 1):
            header = _header(first[1], names, usual)
            for number, cells in table if header else itertools.chain([first], table):
                yield f"{path}:{number}", dict(zip(header or map(str, range(1, len(cells) + 1)), cells))
    except csv.Error:
        raise Unreadable("broken CSV") from None


def _header(cells: Sequence[str], names: Sequence[str], usual: Sequence[str]) -> list[str] | None:
    """The names of a table's columns if these are the cells of its first line; None if that is a row (see `read`)."""
    cells = [cell.strip() for cell in cells]
    if names:
        return None if all(name.isdecimal() for name in names) else cells
    lower = [cell.lower() for cell in cells]
    return lower if usual and set(usual) <= set(lower) else None


# --- Cells ------------------------------------------------------------------------------------------------------------


def columns_of(option: str, field: str) -> list[str]:
    """The columns of a field: itself, or those in braces as in "{question} {context}"; none for ''.

    Raises:
      ConfigError: the field is neither a column nor such a template; names the option.
    """
    if "{" not in field:
        return [field] if field else []
    try:
        parts = list(string.Formatter().parse(field))
    except ValueError as error:
        raise ConfigError(f"{option} = {field!r}: {error}") from None
    if not all(name for _, name, _, _ in parts if name is not None) or any(how or to for _, _, how, to in parts):
        raise ConfigError(f"{option} = {field!r}: a column, or columns in braces such as '{{question}} {{context}}'")
    return [name for _, name, _, _ in parts if name is not None]


def texts_of(place: str, row: Row, field: str, skipped: Counter[str]) -> list[str] | None:
    """The texts of a field of a row, without white space around them: several for a list, one for a template.

    None, which is counted with the row's place, if the row lacks a column.
    """
    found: dict[str, list[str]] = {}
    for name in columns_of("", field):
        texts = _texts(_cell(row, name))
        if texts is None:
            skip(skipped, f"no column {name!r}", place)
            return None
        found[name] = texts
    if "{" not in field:
        return found[field]
    parts = ((before, found[name] if name else []) for before, name, _, _ in string.Formatter().parse(field))
    return ["".join(before + " ".join(texts) for before, texts in parts).strip()]


def _cell(row: Row, name: str) -> Any:
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    value = row.get(outer) if dot else None
    return _cell(value, inner) if isinstance(value, Mapping) else None


def _texts(value: Any) -> list[str] | None:
    """The texts of a cell: a string or number, a list of these, or objects with a field `text` (SQuAD's answers)."""
    if isinstance(value, bytes):
        return [encoding.decode(value).text.strip()]
    if isinstance(value, str):
        return [value.encode("utf-8", "replace").decode().strip()]
    if isinstance(value, Mapping):
        return _texts(value.get("text"))
    if isinstance(value, list | tuple):
        each = [_texts(one) for one in value]
        return None if None in each else [text for texts in each for text in texts or ()]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return None if value is None else [str(value)]
