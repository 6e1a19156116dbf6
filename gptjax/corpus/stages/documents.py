"""A shard's documents for a stage's function, with the place noted at which each attempt is (engine/journal.py).

A document that ends the process again and again is left out of the stage, and a verdict drops it from all later ones
(verdicts.with_set_aside).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from gptjax.corpus.documents import read_documents
from gptjax.corpus.engine import Task
from gptjax.corpus.engine.journal import Journal, rows_place

WORTH = 100  # documents of a batch that together may take as long as one document


def batches(
    task: Task, columns: Sequence[str] | None = None, by_batch: bool = True
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(row of its first document, documents), a few megabytes at a time.

    A batch in which an attempt ended is given document by document, so that it is known which one it was.

    by_batch: whether the place is noted; not if the function itself notes that of each document.
    """
    first = 0
    for batch in read_documents(task.path(task.inputs["documents"]), columns):
        end = first + len(batch)
        if not by_batch:
            yield first, batch
        elif task.journal.has_ended(rows_place(first, end)):
            for row in range(first, end):
                task.journal.begin(rows_place(row, row + 1))
                yield row, batch.slice(row - first, 1)
        else:
            task.journal.begin(rows_place(first, end), 1 + len(batch) / WORTH)
            yield first, batch
        first = end
    task.journal.end()


class Noted:
    """Texts, one for each row; the journal is told which one is looked at. Those that are set aside are empty."""

    def __init__(self, journal: Journal, texts: Iterable[str]):
        self._journal, self._texts = journal, texts

    def __iter__(self) -> Iterator[str]:
        for row, text in enumerate(self._texts):
            yield text if self._journal.begin(rows_place(row, row + 1)) else ""
        self._journal.end()


def set_aside_in(batch: pa.RecordBatch, first: int, rows: dict[int, str]) -> np.ndarray:
    """bool [documents of the batch]: which are set aside; rows: those of the journal."""
    found = np.zeros(len(batch), bool)
    found[[row - first for row in rows if first <= row < first + len(batch)]] = True
    return found
