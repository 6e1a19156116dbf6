"""Evaluation sets: items, each with the texts that identify it. The kinds of files:

  squad   SQuAD 1.1's JSON       an item is a question      fields: context, question, answers (the first two)
  jsonl   JSON, one per line     an item is a record        fields: names (every string, also those in lists)
  table   .csv, or tabs          an item is a row           fields: names in the header, or numbers of columns from 0
                                                            if there is no header (every column, with a header)
  text    plain text             an item is a line          no fields

In brackets: the fields used if a config names none. Files may be compressed or remote, like those of sources.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.formats.encoding import decode
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.opening import bare_name, find_files, open_stream
from gptjax.corpus.sources.streams import Unreadable

KINDS = ("squad", "jsonl", "table", "text")
SQUAD_FIELDS = ("context", "question")


@dataclass(frozen=True)
class Item:
    """One question of an evaluation set. id: the set's own if it has one, else FILE:NUMBER."""

    id: str
    texts: tuple[str, ...]


def listed(sets: Sequence[Any]) -> list[dict]:
    """JSON of a config's sets with their present files: what an index of them depends on.

    Raises:
      ConfigError: a path has no file.
    """
    found = []
    for one in sets:
        try:
            files = find_files(one.path, ("",), links="all")
        except ConfigError as error:
            raise ConfigError(f"contamination: {one.name}: {error}") from None
        if not files:
            raise ConfigError(f"contamination: {one.name}: path = {one.path!r}: no file there")
        pieces = [piece.to_json() for piece in files]
        found.append({"name": one.name, "kind": one.kind, "fields": list(one.fields), "files": pieces})
    return found


def read_items(evaluation: dict) -> Iterator[Item]:
    """The items of a set that `listed` gave, in its order.

    Raises:
      ConfigError: a file is not of its kind, lacks a field, or has no item.
    """
    read = {"squad": _squad, "jsonl": _jsonl, "table": _table, "text": _text}[evaluation["kind"]]
    count = 0
    for file in evaluation["files"]:
        try:
            for item in read(file["uri"], evaluation["fields"]):
                count += 1
                yield item
        except (Unreadable, ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error) as error:
            fields = ", ".join(map(str, evaluation["fields"]))
            raise ConfigError(
                f"contamination: {evaluation['name']}: {file['uri']} cannot be read as kind {evaluation['kind']!r}"
                f"{f' with fields {fields}' if fields else ''} ({type(error).__name__}: {error})"
            ) from None
    if not count:
        raise ConfigError(f"contamination: {evaluation['name']}: there is no item in it")


def _squad(uri: str, fields: Sequence[str]) -> Iterator[Item]:
    for article in json.loads(_read(uri))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                record = {
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": [answer["text"] for answer in question.get("answers", ())],
                }
                yield Item(str(question["id"]), tuple(_strings([record[name] for name in fields or SQUAD_FIELDS])))


def _jsonl(uri: str, fields: Sequence[str]) -> Iterator[Item]:
    for number, line in enumerate(_read(uri).split("\n"), 1):
        if line.strip():
            record = json.loads(line)
            values = [record[name] for name in fields] if fields else list(record.values())
            yield Item(str(record.get("id", f"{bare_name(uri)}:{number}")), tuple(_strings(values)))


def _table(uri: str, fields: Sequence[str | int]) -> Iterator[Item]:
    # As evaluation reads them: in a file of tabs, a quotation mark is a character like any other.
    form: dict[str, Any] = (
        dict(delimiter=",") if bare_name(uri).endswith(".csv") else dict(delimiter="\t", quoting=csv.QUOTE_NONE)
    )
    rows = csv.reader(io.StringIO(_read(uri)), **form)
    header = [] if fields and all(isinstance(field, int) for field in fields) else next(rows)
    columns = [field if isinstance(field, int) else header.index(field) for field in fields]
    for number, row in enumerate(rows, 1):
        yield Item(f"{bare_name(uri)}:{number}", tuple(row[column] for column in columns) if columns else tuple(row))


def _text(uri: str, fields: Sequence[str]) -> Iterator[Item]:
    for number, line in enumerate(_read(uri).split("\n"), 1):
        if line.strip():
            yield Item(f"{bare_name(uri)}:{number}", (line,))


def _read(uri: str) -> str:
    with open_stream(uri, READING) as stream:
        return decode(stream.readall()).text


def _strings(values: Sequence[Any]) -> Iterator[str]:
    """The strings of some JSON values, in lists and objects, too."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _strings(value)
        elif isinstance(value, dict):
            yield from _strings(list(value.values()))
