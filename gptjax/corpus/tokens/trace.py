"""Traces places in a prepared folder's token stream back to their documents.

The stream's files record which document each token belongs to, and the document's place in the corpus
(train.documents.npy, train.origins.npy). FOLDER/work, as long as it is kept, has the document with its origin and
licence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.text import Text

from gptjax import tokenizer
from gptjax.corpus.manifest import WORK
from gptjax.data.prepared import origins_name, read_manifest
from gptjax.data.tokens import TokenSource
from gptjax.data.traced import TracedRow
from gptjax.display.terminal import Console, one_line, write_raw
from gptjax.tokenizer import Tokenizer

TOLD = ("uri", "license", "language")


@dataclass(frozen=True)
class Part:
    """Tokens of the stream that belong to one document.

    Attributes:
      start: their first place in the stream; ids: int32, the tokens.
      first: how many tokens of the document come before them; document: int32, all of its tokens.
      before, text, after: the document's text in three parts: the tokens' text, and what is around it. A character
        with only some of its bytes in the tokens belongs to `text`.
      id, source, uri, license, language: those of the document; None if not known.
      where: the document's file and row, or why it cannot be read.
    """

    start: int
    ids: np.ndarray
    first: int
    document: np.ndarray
    before: str
    text: str
    after: str
    id: int | None
    source: str | None
    uri: str | None
    license: str | None
    language: str | None
    where: str


class Tracer:
    """The documents of a prepared folder's split, by place in its stream.

    Raises:
      ConfigError: it is not a prepared folder, or lacks the split or its tokenizer.
    """

    def __init__(self, folder: str | Path, split: str = "train"):
        self.folder = Path(folder)
        self._manifest = read_manifest(folder)
        self._source = TokenSource(folder, split, verify=False)
        self._offsets = self._source.document_offsets()
        self._tokenizer: Tokenizer = tokenizer.load(folder)
        origins = self.folder / origins_name(split)
        self._origins = np.load(origins, mmap_mode="r") if origins.is_file() else None
        self._licenses = {one["name"]: one["license"] for one in self._manifest.get("sources", ())}

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """The documents with tokens from place `start` to before `stop` of the stream, in order."""
        first = int(np.searchsorted(self._offsets, np.uint64(start), "right")) - 1
        for number in range(first, len(self._offsets) - 1):
            begin, end = self._offsets[number : number + 2].tolist()
            if begin >= stop:
                return
            if begin < end:
                yield self._part(number, max(start, begin), min(stop, end), begin, end)

    def _part(self, number: int, start: int, stop: int, begin: int, end: int) -> Part:
        document = self._source.take_runs(np.array([begin]), np.array([end - begin]))
        before, inside = (len(self._tokenizer.decode_bytes(document[: place - begin])) for place in (start, stop))
        before_text, text, after = whole_characters(self._tokenizer.decode_bytes(document), before, inside)
        return Part(
            start=start,
            ids=document[start - begin : stop - begin],
            first=start - begin,
            document=document,
            before=before_text,
            text=text,
            after=after,
            **self._origin(number),
        )

    def _origin(self, number: int) -> dict:
        """What is known about a document of the stream besides its text."""
        unknown = {"id": None, "source": None, **dict.fromkeys(TOLD)}
        if self._origins is None:
            return {**unknown, "where": "this folder does not say where its documents come from"}
        origin = self._origins[number]
        part, row = self._manifest["parts"][origin["part"]], int(origin["row"])
        known = {**unknown, "id": int(origin["id"]), "source": part["source"]}
        known["license"] = self._licenses.get(part["source"]) or None  # that of the source, if the document's is gone
        path = self.folder / WORK / part["name"]
        if not path.is_file():
            return {**known, "where": f"{path} is gone, so its address and own licence are not known"}
        found = read_row(path, row)
        if found["id"] != known["id"]:
            return {**known, "where": f"{path} has changed since, and holds another document in row {row}"}
        return {**known, **{name: found[name] for name in TOLD}, "where": f"{path}, row {row}"}


def read_row(path: Path, row: int) -> dict:
    """One row of a Parquet file of documents, without its text; only its row group is read."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                table = file.read_row_group(group, columns=["id", *TOLD], use_threads=False)
                return table.slice(row, 1).to_pylist()[0]
            row -= rows
    return {"id": None}


def whole_characters(data: bytes, start: int, stop: int) -> tuple[str, str, str]:
    """UTF-8 text in three parts; the middle one is `start` to `stop`, extended so that no character is cut."""
    while start > 0 and start < len(data) and data[start] & 0xC0 == 0x80:
        start -= 1
    while stop < len(data) and data[stop] & 0xC0 == 0x80:
        stop += 1
    before, inside, after = (part.decode("utf-8", "replace") for part in (data[:start], data[start:stop], data[stop:]))
    return before, inside, after


def show_row(console: Console, row: TracedRow, whole: bool) -> None:
    """Prints the documents of one row of a training batch; `whole`: including their text outside of the row."""
    write_raw(console, row.title + "\n", "bold")
    tracer = Tracer(row.folder)
    for position, start, targets in row.spans:
        for part in tracer.parts(start, start + targets):
            write_raw(console, description(part, position + part.start - start, whole).append("\n"))


def description(part: Part, position: int, whole: bool) -> Text:
    """What is known about a document in a row. position: the position whose target is the part's first token."""
    tokens = f"tokens {part.first} to {part.first + len(part.ids) - 1} of {len(part.document)}"
    known = {"source": part.source, "uri": part.uri, "license": part.license, "language": part.language, "id": part.id}
    lines = [f"\npositions {position} to {position + len(part.ids) - 1} predict {tokens} of a document"]
    lines += [
        f"  {name:<9} {one_line(str(value)) if value not in (None, '') else 'not known'}"
        for name, value in known.items()
    ]
    lines.append(f"  {'from':<9} {part.where}\n")
    before, after = (part.before + "⟦", "⟧" + part.after) if whole else ("", "")
    return Text.assemble(("\n".join(lines), "cyan"), (before, "dim"), part.text, (after, "dim"))
