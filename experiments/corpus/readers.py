"""Measures how fast one core reads documents from each kind of source: files in, documents out, nothing written.

  python experiments/corpus/readers.py DATA [--repeats=3]

DATA has the layout that configs/corpus/everything.py describes. The code is this Python's installed packages; the
tables are made from the books, in a temporary folder. Every reader reads once before it is timed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import statistics
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gptjax.corpus.sources import kind_named

MEGABYTE = 1_000_000
MOST_BYTES = 40 * MEGABYTE  # read at most this many bytes of a source, spread over all its files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, one process; medians of {arguments.repeats}\n")
    print("| source | files | MB read | documents | MB of text | seconds (spread) | MB read/s | MB of text/s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        write_tables(arguments.data / "books", Path(folder))
        for name, kind, path in sources(arguments.data, Path(folder)):
            measure(name, kind, path, arguments.repeats)


def sources(data: Path, made: Path) -> list[tuple[str, str, str]]:
    """(name, kind, path)."""
    return [
        ("code: installed packages", "code", sysconfig.get_path("purelib")),
        ("books: Markdown", "books", f"{data}/books/classic_books"),
        ("books: text and HTML with Gutenberg's header", "books", f"{data}/books/frankenstein_editions"),
        ("wikipedia: XML dump, bzip2", "wikipedia", f"{data}/text/wikipedia_xml"),
        ("wikipedia: WikiExtractor", "wikipedia", f"{data}/text/wikipedia_2014"),
        ("papers: LaTeX", "papers", f"{data}/papers/HoTT_book,{data}/papers/sympy_paper,{data}/papers/emcee"),
        ("papers: unarXive", "papers", f"{data}/papers/unarXive"),
        ("papers: ACL Anthology", "papers", f"{data}/papers/acl_anthology_toy"),
        ("tables: Parquet, zstd", "tables", f"{made}/books.parquet"),
        ("tables: JSON lines, gzip", "tables", f"{made}/books.jsonl.gz"),
        ("tables: CSV", "tables", f"{made}/books.csv"),
    ]


def write_tables(books: Path, folder: Path) -> None:
    """Writes the books' paragraphs, one per row, up to MOST_BYTES."""
    rows, size = [], 0
    for path in sorted(books.rglob("*.md")):
        for paragraph in path.read_text().split("\n\n"):
            rows.append(paragraph)
            size += len(paragraph)
        if size > MOST_BYTES:
            break
    pq.write_table(pa.table({"text": rows}), folder / "books.parquet", compression="zstd", row_group_size=20_000)
    with gzip.open(folder / "books.jsonl.gz", "wt", compresslevel=6) as file:
        file.writelines(json.dumps({"text": row}) + "\n" for row in rows)
    with open(folder / "books.csv", "w") as file:
        file.writelines(["text\n", *('"' + row.replace('"', '""') + '"\n' for row in rows)])


def measure(name: str, kind: str, path: str, repeats: int) -> None:
    module = kind_named(kind)
    pieces = module.find(path, module.OPTIONS)
    step = max(1, round(sum(piece.size for piece in pieces) / MOST_BYTES))
    pieces = pieces[::step]
    seconds = []
    for _ in range(repeats + 1):
        documents = size = 0
        begun = time.perf_counter()
        for piece in pieces:
            for document in module.read(piece, module.OPTIONS, Counter()):
                documents += 1
                size += len(document.text)
        seconds.append(time.perf_counter() - begun)
    timed = seconds[1:]
    median, spread = statistics.median(timed), max(timed) - min(timed)
    read = sum(piece.size for piece in pieces) / MEGABYTE
    text = size / MEGABYTE
    print(
        f"| {name} | {len(pieces)} | {read:.1f} | {documents} | {text:.1f} | {median:.2f} ({spread:.2f}) "
        f"| {read / median:.1f} | {text / median:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
