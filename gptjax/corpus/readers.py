"""Files to documents, one at a time. What cannot be read is counted with its reason, and the run goes on."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow
import pyarrow.parquet

from gptjax.config import ConfigError
from gptjax.corpus.inputs import InputFile, find_files

ENCODING_ERRORS = ("replace", "skip", "error")
PARQUET_ROWS = 64  # read at once
BLOCK = 1 << 20  # bytes read at once of a file with separators


@dataclass(frozen=True)
class Document:
    text: str  # valid Unicode, never empty
    source: str  # where it came from: 'folder/file.jsonl:12'


class Reader:
    """The documents of several files, in the files' order; every pass over it gives the same ones.

    A .txt, .md or .py file is one document, or several where a `separator` stands between them; a line of .jsonl(.gz)
    or a row of .parquet is one, its text in `text_field`.

    Attributes (of the latest pass; a new pass starts them anew):
      skipped: reason → how many files or documents were left out.
      replaced: documents in which bytes that are not UTF-8 became U+FFFD.
      bytes_read: size of the files read so far, of `total_bytes`.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        *,
        encoding_errors: str = "replace",
        text_field: str = "text",
        separator: str = "",
    ):
        if encoding_errors not in ENCODING_ERRORS:
            raise ConfigError(f"encoding_errors = {encoding_errors!r}: expected one of {', '.join(ENCODING_ERRORS)}")
        self._encoding_errors = encoding_errors
        self._text_field = text_field
        self._separator = separator.encode()
        self.files, self._passed_over = find_files(inputs)
        self.total_bytes = sum(file.size for file in self.files)
        self._start_pass()

    def _start_pass(self) -> None:
        self.skipped: Counter[str] = Counter(self._passed_over)
        self.replaced = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Document]:
        """Raises ConfigError at text that is not UTF-8 where `encoding_errors` is 'error'."""
        self._start_pass()
        for file in self.files:
            for source, raw in self._records(file):
                if (text := self._text(raw, source)) is not None:
                    yield Document(text, source)
            self.bytes_read += file.size

    def _records(self, file: InputFile) -> Iterator[tuple[str, bytes]]:
        """The undecoded documents of one file, up to the point where it cannot be read any further."""
        name = file.path.name.lower()
        if name.endswith((".jsonl", ".jsonl.gz")):
            read = self._json_lines
        elif name.endswith(".parquet"):
            read = self._parquet
        else:
            read = self._separated if self._separator else self._whole
        try:
            yield from read(file)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.skipped["truncated or corrupt gzip"] += 1
        except pyarrow.ArrowException:
            self.skipped["corrupt parquet"] += 1
        except OSError as error:
            # pyarrow reports some corruption as an OSError without a number.
            self.skipped["corrupt parquet" if error.errno is None else f"unreadable ({type(error).__name__})"] += 1

    def _whole(self, file: InputFile) -> Iterator[tuple[str, bytes]]:
        yield file.source, file.path.read_bytes()

    def _separated(self, file: InputFile) -> Iterator[tuple[str, bytes]]:
        rest, number = b"", 1
        with open(file.path, "rb") as stream:
            while block := stream.read(BLOCK):
                *records, rest = (rest + block).split(self._separator)
                for record in records:
                    yield f"{file.source}:{number}", record
                    number += 1
        if rest:
            yield f"{file.source}:{number}", rest

    def _json_lines(self, file: InputFile) -> Iterator[tuple[str, bytes]]:
        with open(file.path, "rb") as stream:
            lines = gzip.GzipFile(fileobj=stream) if file.path.name.lower().endswith(".gz") else stream
            for number, line in enumerate(lines, 1):
                source = f"{file.source}:{number}"
                if not line.strip() or (decoded := self._decode(line, source)) is None:
                    continue
                try:
                    record = json.loads(decoded)
                except (ValueError, RecursionError):
                    self.skipped["broken JSON line"] += 1
                    continue
                text = record.get(self._text_field) if isinstance(record, dict) else None
                if isinstance(text, str):
                    # JSON can escape half a surrogate pair, which is no more UTF-8 than a stray byte.
                    yield source, text.encode("utf-8", "surrogatepass")
                else:
                    self._no_text()

    def _parquet(self, file: InputFile) -> Iterator[tuple[str, bytes]]:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            kinds = {column.name: column.type for column in table.schema_arrow}
            if kinds.get(self._text_field) not in (pyarrow.string(), pyarrow.large_string()):
                self._no_text()
                return
            number = 1
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=[self._text_field]):
                # As bytes: what a string column holds is not always UTF-8.
                for raw in batch.column(0).cast(pyarrow.large_binary()).to_pylist():
                    if raw is None:
                        self._no_text()
                    else:
                        yield f"{file.source}:{number}", raw
                    number += 1

    def _no_text(self) -> None:
        self.skipped[f"no text in field {self._text_field!r}"] += 1

    def _text(self, raw: bytes, source: str) -> str | None:
        """The record's text, or None where it is counted as skipped."""
        if not raw or raw == codecs.BOM_UTF8:
            self.skipped["empty"] += 1
        elif b"\0" in raw:
            self.skipped["NUL bytes: not a text"] += 1
        else:
            return self._decode(raw.removeprefix(codecs.BOM_UTF8), source)
        return None

    def _decode(self, raw: bytes, source: str) -> str | None:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if self._encoding_errors == "error":
                raise ConfigError(
                    f"{source}: not UTF-8 at byte {error.start} ({error.reason}); "
                    "--encoding_errors=replace or skip goes on"
                ) from error
            if self._encoding_errors == "skip":
                self.skipped["not UTF-8"] += 1
                return None
            self.replaced += 1
            return raw.decode("utf-8", errors="replace")
