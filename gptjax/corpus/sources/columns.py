"""Rows of Parquet and Arrow files, some at a time, with the wanted columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from gptjax.corpus.sources.opening import bare_name, is_remote, open_file
from gptjax.corpus.sources.streams import Unreadable

ROWS = 256  # read at once


def parquet_batches(file: BinaryIO, names: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[Any]:
    """Record batches of those columns that exist. groups: the row groups to read; none: all."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        groups = range(table.num_row_groups) if groups is None else groups
        columns = [name for name in names if name in table.schema_arrow.names]
        yield from table.iter_batches(batch_size=ROWS, row_groups=list(groups), columns=columns)


def column_names(path: str) -> list[str]:
    """The names of a Parquet file's columns."""
    import pyarrow.parquet

    with open_file(path) as file:
        return pyarrow.parquet.read_schema(file).names


def arrow_batches(file: BinaryIO, names: Sequence[str]) -> Iterator[Any]:
    """The same for Arrow's files and streams; the `datasets` library writes streams."""
    import pyarrow.ipc

    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        reader = pyarrow.ipc.open_file(file)
        batches: Iterable[Any] = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        batches = pyarrow.ipc.open_stream(file)
    for batch in batches:
        batch.validate(full=True)  # Arrow trusts the lengths in a file and would read beyond its end
        columns = [name for name in names if name in batch.schema.names]
        for start in range(0, batch.num_rows, ROWS):
            yield batch.slice(start, ROWS).select(columns)


def rows(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Column → cell of each row; strings are bytes, since a column of strings is not always valid UTF-8."""
    for batch in batches:
        columns = {name: _cells(batch.column(name)) for name in batch.schema.names}
        for row in range(batch.num_rows):
            yield {name: cells[row] for name, cells in columns.items()}


def _cells(column: Any) -> list[Any]:
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        column = column.cast(pyarrow.large_binary())
    return column.to_pylist()


@contextmanager
def arrow_errors(path: str) -> Iterator[None]:
    """Arrow's errors for a corrupt file become Unreadable; those of a failing network are passed on."""
    import pyarrow

    kind = "parquet" if bare_name(path).endswith(".parquet") else "arrow"
    try:
        yield
    except (pyarrow.ArrowException, MemoryError):  # from invalid lengths
        raise Unreadable(f"corrupt {kind}") from None
    except OSError as error:
        # pyarrow reports some corruption as an OSError without a number.
        if error.errno is not None and is_remote(path):
            raise
        raise Unreadable(f"corrupt {kind}" if error.errno is None else type(error).__name__) from None
