"""Tables with columns of text: Hugging Face datasets, Parquet, Arrow, JSON lines and CSV; one document per row.

Cards and descriptions beside the tables (README.md, dataset_infos.json, state.json …) are skipped. Large Parquet
files are read as several pieces.
"""

from __future__ import annotations

import csv
import fnmatch
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.documents import Document
from gptjax.corpus.formats import encoding
from gptjax.corpus.sources import UNREADABLE, Piece, begins
from gptjax.corpus.sources.columns import arrow_batches, arrow_errors, parquet_batches, rows
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.opening import bare_name, expanded, find_files, is_remote, open_file, open_stream
from gptjax.corpus.sources.records import decode, json_values, lines
from gptjax.corpus.sources.streams import Unreadable, counted
from gptjax.display.formatting import MEGABYTE

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv")
OPTIONS = {
    "text": "text",  # a column, or a template of several: "{title}\n\n{body}"
    "uri": "",  # the column of each row's address; none: file and row
    "license": "",  # the column of each row's licence
    "language": "",  # the column of each row's language
    "split": "*",  # files to read: a pattern for a folder or the beginning of a name (train-00000-of-00002.parquet)
    **READING,
}
PIECE_BYTES = 256 * MEGABYTE  # bytes of the row groups of a Parquet file that form one piece
_DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "metadata.json")


# --- Finding files ----------------------------------------------------------------------------------------------------


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """The tables of `path`, as opening.find_files finds them, in the splits asked for.

    Raises:
      ConfigError: one does not exist, or is a file of another kind; `text` names no column.
    """
    _columns(options)
    roots = expanded(path)
    pieces: list[Piece] = []
    for piece in find_files(path, SUFFIXES, leave_out=_DESCRIPTIONS, links=options["links"]):
        if "left_out" in piece.options:
            pieces.append(piece)
        elif piece.uri in roots or _in_split(piece.uri, roots, options["split"]):
            pieces.extend(_row_groups(piece) if piece.uri.lower().endswith(".parquet") else [piece])
    return pieces


def _in_split(uri: str, roots: list[str], split: str) -> bool:
    """Whether a folder below the given path, or the name up to its first "-" or ".", matches the split."""
    root = max((one for one in roots if uri.startswith(one)), key=len, default="")
    *folders, name = uri[len(root) :].strip("/").split("/")
    parts = (*folders, name, name.partition(".")[0], name.partition("-")[0])
    return any(fnmatch.fnmatchcase(part, split) for part in parts)


def _row_groups(piece: Piece) -> list[Piece]:
    """A large Parquet file as runs of row groups; as one piece if its footer cannot be read."""
    if piece.size <= PIECE_BYTES or is_remote(piece.uri):  # reading thousands of remote footers would take long
        return [piece]
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(piece.uri) as table:
            groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
    except (OSError, pyarrow.ArrowException):
        return [piece]
    sizes = [group.total_byte_size for group in groups]
    runs: list[list[int]] = [[]]
    for number, size in enumerate(sizes):
        if runs[-1] and sum(sizes[one] for one in runs[-1]) + size > PIECE_BYTES:
            runs.append([])
        runs[-1].append(number)
    return [
        Piece(
            f"{piece.uri}#groups={run[0]}-{run[-1]}",
            piece.size * sum(sizes[number] for number in run) // max(sum(sizes), 1),
            piece.version,
            {"path": piece.uri, "groups": run, "row": sum(group.num_rows for group in groups[: run[0]])},
        )
        for run in runs
        if run
    ]


# --- Documents --------------------------------------------------------------------------------------------------------


def libraries(uri: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    return (*encoding.DETECTORS, *(("pyarrow",) if bare_name(uri).endswith((".parquet", ".arrow")) else ()))


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The documents of one table, up to the point where it cannot be read any further."""
    path = piece.options.get("path", piece.uri)
    names = [*_columns(options), *(options[name] for name in ("uri", "license", "language") if options[name])]
    with counted(skipped):
        for number, row in _rows(piece, path, names, options, skipped):
            if not begins(skipped, f"{path}:{number}"):
                continue
            values = {name: _text(row.get(name), skipped) for name in names}
            text = _put_together(options["text"], values)
            if "\0" in text:
                skipped[f"{UNREADABLE}NUL bytes: not a text"] += 1
            elif text.strip():
                uri, license, language = (values.get(options[name], "") for name in ("uri", "license", "language"))
                yield Document(text, uri or f"{path}:{number}", license, language)
            else:
                skipped[f"no text in {options['text']!r}"] += 1


def _columns(options: Mapping[str, Any]) -> list[str]:
    """The columns of the text.

    Raises:
      ConfigError: no column is named, or the template is invalid.
    """
    template = options["text"]
    try:
        fields = list(string.Formatter().parse(template)) if "{" in template else [("", template, "", None)]
    except ValueError as error:
        raise ConfigError(f"text = {template!r}: {error}") from None
    names = [name for _, name, _, _ in fields if name is not None]
    if not names or not all(names) or any(spec or conversion for _, _, spec, conversion in fields):
        raise ConfigError(f"text = {template!r}: a column, or columns in braces such as '{{title}}\\n\\n{{body}}'")
    return names


def _put_together(template: str, values: Mapping[str, str]) -> str:
    """The text of a row; '' if all its columns are empty."""
    if "{" not in template:
        return values[template]
    parts = [(literal, values[name] if name else "") for literal, name, _, _ in string.Formatter().parse(template)]
    return "".join(literal + value for literal, value in parts).strip("\n") if any(v for _, v in parts) else ""


def _text(value: Any, skipped: Counter[str]) -> str:
    """A cell as text, with U+FFFD for invalid Unicode."""
    if value is None or isinstance(value, list | dict):
        return ""
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return decode(raw, "", "detect", skipped)


def _rows(
    piece: Piece, path: str, names: list[str], options: Mapping[str, Any], skipped: Counter[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number from 1, those of the named columns that exist) of each row."""
    suffix = bare_name(path)
    if suffix.endswith((".parquet", ".arrow")):
        with arrow_errors(path), open_file(path) as file:
            if suffix.endswith(".parquet"):
                batches = parquet_batches(file, names, piece.options.get("groups"))
            else:
                batches = arrow_batches(file, names)
            yield from enumerate(rows(batches), piece.options.get("row", 0) + 1)
    elif suffix.endswith((".csv", ".tsv")):
        yield from _csv(path, options, skipped)
    else:
        for number, value in json_values(path, options, skipped):
            if isinstance(value, dict):
                yield number, value
            else:
                skipped[f"{UNREADABLE}a line that is not a record"] += 1


def _csv(path: str, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    csv.field_size_limit(options["max_line_bytes"])
    with open_stream(path, options) as stream:
        text = (decode(line, path, "detect", skipped) + "\n" for _, line in lines(stream, options, skipped))
        try:
            records = csv.DictReader(text, delimiter="\t" if bare_name(path).endswith(".tsv") else ",")
            yield from enumerate(records, 1)
        except csv.Error:
            raise Unreadable("broken CSV") from None
