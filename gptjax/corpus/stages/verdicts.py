"""Verdicts: which documents of a shard are dropped and why; and the documents that remain.

A verdict names a document by its row in the shard, since its id depends on content and origin, and a source may
contain the same document twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from gptjax.corpus.documents import is_blank
from gptjax.corpus.duplicates.passages import without
from gptjax.corpus.engine import Task
from gptjax.corpus.engine.journal import rows_set_aside
from gptjax.corpus.stages.documents import batches

VERDICTS = pa.schema(
    {
        "row": pa.uint32(),
        "id": pa.uint64(),
        "reason": pa.string(),  # why it is dropped; '': it stays, and only `representative` matters
        "representative": pa.uint64(),  # the document that stays of its cluster of copies; 0: none
    }
)

SET_ASIDE = "set_aside.parquet"
ENDED = "its process ended: {}"
PASSAGES = "repeated passages"  # not documents, but parts of documents that stay
EMPTIED = "nothing but repeated passages"


def write_verdicts(
    path: Path, rows: np.ndarray, ids: np.ndarray, reasons: Sequence[str] | np.ndarray, representatives: np.ndarray
) -> None:
    """Writes one verdict per entry; rows ascending."""
    columns = [pa.array(rows, pa.uint32()), pa.array(ids, pa.uint64()), pa.array(reasons, pa.string())]
    table = pa.table([*columns, pa.array(representatives, pa.uint64())], schema=VERDICTS)
    pq.write_table(table, path, compression="zstd")


def with_set_aside(function: Callable[[Task, Path], dict], task: Task, folder: Path) -> dict:
    """What a stage runs: its function, and then the verdict on documents that were set aside.

    The report's set_aside has them as (row, document, language, license, bytes, reason).
    """
    report = function(task, folder)
    rows = rows_set_aside(task.journal)
    if not rows:
        return report
    numbers = np.array(sorted(rows))
    names = ["id", "uri", "language", "license", "text"]
    found = pq.read_table(task.path(task.inputs["documents"]), columns=names).take(numbers)
    reasons = [ENDED.format(rows[row]) for row in numbers.tolist()]
    write_verdicts(folder / SET_ASIDE, numbers, found["id"].to_numpy(), reasons, np.zeros(len(numbers), np.uint64))
    sizes = pc.binary_length(found["text"]).to_pylist()
    columns = (numbers.tolist(), *(found[name].to_pylist() for name in names[1:4]), sizes, reasons)
    return {**report, "set_aside": [list(row) for row in zip(*columns)]}


@dataclass(frozen=True)
class Remaining:
    """Some remaining documents of a shard, in order, and what was dropped around them.

    Attributes:
      rows: int64 [documents], their rows in the shard; ids: uint64 [documents].
      texts, uris, languages, licenses: those of the documents.
      split_keys: uint64 [documents], equal for documents that must be in the same split: copies of each other, and
        parts of one document (but a part that has copies stays with those).
      dropped: reason → (documents, bytes) dropped between these documents, and passages left out of them.
    """

    rows: np.ndarray
    ids: np.ndarray
    texts: list[str]
    uris: list[str]
    languages: list[str]
    licenses: list[str]
    split_keys: np.ndarray
    dropped: dict[str, tuple[int, int]]


def remaining(task: Task) -> Iterator[Remaining]:
    """The documents of `task.inputs['documents']` that no file of `task.inputs['verdicts']` drops, some at a time.

    If several files drop a document, the first gives the reason. `task.inputs['spans']`, if there is one, has passages
    to leave out (stages/passages.py).
    """
    spans = _read_spans(task.path(task.inputs["spans"])) if task.inputs.get("spans") else {}
    tables = [pq.read_table(task.path(entry)) for entry in task.inputs["verdicts"]]
    set_aside = rows_set_aside(task.journal)
    for first_row, batch in batches(task, ["id", "parent_id", "uri", "language", "license", "text"]):
        reasons = np.full(len(batch), "", object)
        representatives = np.zeros(len(batch), np.uint64)
        for table in tables:
            rows = table["row"].to_numpy().astype(np.int64) - first_row
            here = (rows >= 0) & (rows < len(batch))
            rows = rows[here]
            given = np.array(table["reason"].to_pylist(), object)[here]
            reasons[rows] = np.where(reasons[rows] == "", given, reasons[rows])
            representatives[rows] = np.maximum(representatives[rows], table["representative"].to_numpy()[here])
        for row, how in set_aside.items():
            if first_row <= row < first_row + len(batch) and reasons[row - first_row] == "":
                reasons[row - first_row] = ENDED.format(how)
        shortened = _shortened(batch, reasons, first_row, spans)
        stay = np.flatnonzero(reasons == "")
        kept = batch.take(pa.array(stay))
        ids, texts = kept["id"].to_numpy(), kept["text"].to_pylist()
        dropped = _dropped(batch, reasons)
        if shortened:
            texts = [shortened.get(place, text) for place, text in zip(stay.tolist(), texts)]
            size = sum(len(text.encode()) for text in texts)
            dropped[PASSAGES] = (0, pc.sum(pc.binary_length(kept["text"])).as_py() - size)
        yield Remaining(
            rows=stay + first_row,
            ids=ids,
            texts=texts,
            uris=kept["uri"].to_pylist(),
            languages=kept["language"].to_pylist(),
            licenses=kept["license"].to_pylist(),
            split_keys=_split_keys(texts, kept["parent_id"].to_numpy(), representatives[stay]),
            dropped=dropped,
        )


def _read_spans(path: Path) -> dict[int, np.ndarray]:
    """Row → int64 [spans, 2]."""
    row, start, end = (column.to_numpy() for column in pq.read_table(path).columns)
    first = np.flatnonzero(np.diff(row, prepend=-1))
    return dict(zip(row[first].tolist(), np.split(np.stack([start, end], axis=1), first[1:])))


def _shortened(
    batch: pa.RecordBatch, reasons: np.ndarray, first_row: int, spans: dict[int, np.ndarray]
) -> dict[int, str]:
    """Place in the batch → what is left of a text with spans. If nothing is left, a reason is set."""
    found = {}
    for place in np.flatnonzero(reasons == "").tolist() if spans else ():
        if first_row + place in spans:
            text = without(batch["text"][place].as_py(), spans[first_row + place])
            if is_blank(text):
                reasons[place] = EMPTIED
            else:
                found[place] = text
    return found


def _split_keys(texts: list[str], parents: np.ndarray, representatives: np.ndarray) -> np.ndarray:
    keys = np.where(representatives, representatives, parents)
    for place in np.flatnonzero(keys == 0):
        keys[place] = xxhash.xxh3_64_intdigest(texts[place].encode())  # at least exact copies are in the same split
    return keys


def _dropped(batch: pa.RecordBatch, reasons: np.ndarray) -> dict[str, tuple[int, int]]:
    sizes = pc.binary_length(batch["text"]).to_numpy()
    out = reasons != ""
    names, inverse, counts = np.unique(reasons[out].astype(str), return_inverse=True, return_counts=True)
    size = np.bincount(inverse, weights=sizes[out], minlength=len(names)).astype(int)
    return {str(name): (int(count), int(bytes_)) for name, count, bytes_ in zip(names, counts, size)}
