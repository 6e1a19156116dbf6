"""Tries cleaning on some documents of a corpus, before hours are spent on all of them."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gptjax.config import ConfigError
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.documents import Document, DocumentWriter, rows_of
from gptjax.corpus.duplicates.sketch import exact_hashes
from gptjax.corpus.engine import Task
from gptjax.corpus.sources import Piece, read_piece
from gptjax.corpus.sources.listing import Listing
from gptjax.corpus.stages.clean import clean
from gptjax.corpus.stages.select import select
from gptjax.corpus.stages.splits import draws, numbered
from gptjax.display.formatting import MEGABYTE

PIECES = 16  # pieces of a source, at least, from which documents are taken (if it has them)


@dataclasses.dataclass(frozen=True)
class Preview:
    """Some documents of one source.

    Attributes:
      source: its config; skipped: reason → count of what reading left out.
      cleaned, selected: the reports of these stages; copies: documents whose text was already read, from any source.
    """

    source: Any
    skipped: Mapping[str, int]
    cleaned: dict
    selected: dict
    copies: int


def preview(config: Any, listing: Listing, count: int) -> list[Preview]:
    """Reads about `count` documents, as many of each source, and judges them as the config asks.

    They are the first documents of randomly drawn pieces, so that little is read. Files are written to a temporary
    folder.

    Raises:
      ConfigError: no document can be read.
    """
    most_bytes = round(config.max_document_megabytes * MEGABYTE)
    met, previews = np.zeros(0, np.uint64), []
    with tempfile.TemporaryDirectory(prefix="gptjax-sample-") as name:
        for source in config.sources:
            skipped: Counter[str] = Counter()
            folder = Path(name, source.name)
            folder.mkdir()
            with DocumentWriter(folder / "read.parquet") as writer:
                for document in _some(listing, source, -(-count // len(config.sources)), config.seed, skipped):
                    writer.append(rows_of(source.name, document, most_bytes, skipped))
            cleaned: dict[str, Any] = {}
            selected: dict[str, Any] = {}
            hashes = np.zeros(0, np.uint64)
            if writer.documents:
                cleaned, selected = _judged(config.cleaning, source, folder)
                hashes = exact_hashes(pq.read_table(folder / "documents.parquet")["text"].to_pylist())
            copies = len(hashes) - len(np.setdiff1d(hashes, met))
            met = np.union1d(met, hashes)
            previews.append(Preview(source, dict(skipped), cleaned, selected, copies))
    if not any(each.cleaned for each in previews):
        raise ConfigError("--sample: no document could be read")
    return previews


def _some(listing: Listing, source: Any, count: int, seed: int, skipped: Counter[str]) -> Iterator[Document]:
    """About `count` documents of a source: the first few of pieces in a random order."""
    tasks = [task for task, of in zip(listing.tasks, listing.sources) if of.name == source.name]
    pieces = [(task["source"], Piece(**piece)) for task in tasks for piece in task["pieces"]]
    order = np.argsort(draws(numbered(0, len(pieces)), seed)).tolist()
    few = -(-count // min(len(pieces), PIECES))
    left = count
    for number in order:
        task_source, piece = pieces[number]
        documents = read_piece(task_source["kind"], piece, task_source["options"], skipped)
        for document in itertools.islice(documents, min(few, left)):
            left -= 1
            yield dataclasses.replace(
                document,
                license=document.license or source.license,
                language=document.language or source.language,
            )
        if not left:
            return


def _judged(settings: Any, source: Any, folder: Path) -> tuple[dict, dict]:
    """The reports of clean and select on the documents in `folder`."""
    inputs = {"documents": {"name": "read.parquet"}, **cleaning.treatment(source)}
    options = cleaning.options(settings)
    cleaned = clean(Task(0, inputs, options, folder), folder)
    inputs = {name: {"name": f"{name}.parquet"} for name in ("documents", "statistics")}
    return cleaned, select(Task(0, inputs | cleaning.verdict(settings, source), {}, folder), folder)
