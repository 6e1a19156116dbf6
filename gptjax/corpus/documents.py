"""The files of documents between stages: Parquet with zstd, read and written a few megabytes at a time."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

SCHEMA = pa.schema(
    {
        "id": pa.uint64(),  # of source, uri and content
        "parent_id": pa.uint64(),  # of the document that this one was cut from; 0: none
        "source": pa.string(),
        "uri": pa.string(),  # its origin: URL or path, and the place within
        "license": pa.string(),
        "language": pa.string(),
        "text": pa.large_string(),
    }
)
GROUP_BYTES = 8 << 20  # text per row group, which a reader holds in memory
COMPRESSION_LEVEL = 3
BLANK = "empty or blank"  # why a text is no document
# Invisible, although Unicode has them as letters and symbols: Hangul's fillers, Braille's empty cell.
_UNSEEN = frozenset("\u115f\u1160\u2800\u3164\uffa0")


@dataclass(frozen=True)
class Document:
    """What a source reader yields. text: valid Unicode (no lone surrogates)."""

    text: str
    uri: str
    license: str = ""
    language: str = ""


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing: spaces, newlines, control characters, zero-width ones, byte order marks."""
    # For nearly every text the first characters decide.
    return all(unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cc", "Cf") or c in _UNSEEN for c in text)


def document_id(source: str, uri: str, text: str) -> int:
    """A 64-bit hash of source, uri and content; it does not depend on the document's position."""
    digest = xxhash.xxh3_64()
    for part in (source, uri, text):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.intdigest()


def rows_of(source: str, document: Document, most_bytes: int, skipped: Counter[str]) -> Iterator[dict]:
    """A document as a row of SCHEMA; a document longer than `most_bytes` as several rows, cut at paragraphs.

    Blank text gives no row; it is counted in `skipped`.
    """
    whole = document_id(source, document.uri, document.text)
    common = {"source": source, "license": document.license, "language": document.language}
    parts = cut_at_paragraphs(document.text, most_bytes)
    blank = list(map(is_blank, parts))
    if any(blank):
        skipped[BLANK] += sum(blank)
    if len(parts) == 1:
        if not blank[0]:
            yield {"id": whole, "parent_id": 0, "uri": document.uri, "text": document.text, **common}
        return
    for number, text in enumerate(parts, 1):
        if blank[number - 1]:
            continue
        uri = f"{document.uri}#part={number}"
        yield {"id": document_id(source, uri, text), "parent_id": whole, "uri": uri, "text": text, **common}


def cut_at_paragraphs(text: str, most_bytes: int) -> list[str]:
    """Cuts `text` into parts of at most `most_bytes` of UTF-8; joined, they are `text` again.

    It cuts after an empty line if the second half of a part has one; else after a newline, a space, or anywhere between
    two characters.
    """
    if len(text) * 4 <= most_bytes:  # no character has more than four bytes
        return [text]
    encoded, parts, start = text.encode(), [], 0
    while len(encoded) - start > most_bytes:
        end = start + most_bytes
        for separator in (b"\n\n", b"\n", b" "):
            cut = encoded.rfind(separator, start + most_bytes // 2, end) + len(separator)
            if cut >= len(separator):
                break
        else:
            cut = end
            while encoded[cut] & 0xC0 == 0x80:  # within a character
                cut -= 1
        parts.append(encoded[start:cut].decode())
        start = cut
    return [*parts, encoded[start:].decode()]


class DocumentWriter:
    """Writes rows of a schema to one Parquet file; a context manager, or `close` it.

    Attributes:
      documents: rows appended.
      bytes: size of the text appended, in UTF-8.
    """

    def __init__(self, path: Path, schema: pa.Schema = SCHEMA):
        self._schema = schema
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=[name for name in ("source", "license", "language") if name in schema.names],
            write_statistics=["id"] if "id" in schema.names else False,
        )
        self._rows: list[dict] = []
        self._batches: list[pa.RecordBatch] = []
        self._waiting = 0
        self.documents = 0
        self.bytes = 0

    def append(self, rows: Iterable[dict]) -> None:
        for row in rows:
            size = len(row["text"].encode())
            self._rows.append(row)
            self._count(1, size)

    def append_batch(self, batch: pa.RecordBatch, text_bytes: int) -> None:
        """Appends an Arrow batch that has `text_bytes` bytes of text."""
        self._gather()
        self._batches.append(batch.cast(self._schema))
        self._count(batch.num_rows, text_bytes)

    def close(self) -> None:
        self._write()
        self._writer.close()

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()

    def _count(self, documents: int, size: int) -> None:
        self.documents += documents
        self.bytes += size
        self._waiting += size
        if self._waiting >= GROUP_BYTES:
            self._write()

    def _gather(self) -> None:
        if self._rows:
            self._batches.append(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows = []

    def _write(self) -> None:
        self._gather()
        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._batches, self._waiting = [], 0


def read_documents(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The documents of one file, a row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=None if columns is None else list(columns), use_threads=False)
            yield from table.combine_chunks().to_batches()
