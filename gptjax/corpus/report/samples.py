"""Sample documents for the card: some of each source that stayed, and some that were dropped for each reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gptjax.corpus.forms import TEXT, shown
from gptjax.corpus.stages.splits import CUT, draws
from gptjax.corpus.stages.verdicts import EMPTIED, PASSAGES
from gptjax.corpus.state import DocumentShard

EACH = 2  # samples per source, and per reason
CHARACTERS = 400


@dataclass(frozen=True)
class Sample:
    """The beginning of a document. reason: why it was dropped; '': it stayed."""

    reason: str
    source: str
    uri: str
    id: int
    text: str
    is_whole: bool


def draw_samples(shards: Sequence[DocumentShard], work: Path, seed: int, form: str = TEXT) -> list[Sample]:
    """Documents drawn by their ids, so that equal corpora give equal samples; those that stayed come first.

    They are from the first shards that have any, so that only few files are read.
    """
    kept: list[Sample] = []
    for name in dict.fromkeys(shard.source.name for shard in shards):
        of_source = [shard for shard in shards if shard.source.name == name and shard.left["documents"]]
        for shard in of_source[:1]:
            reasons, ids = _reasons(shard, work)
            kept += _read(shard, work, form, reasons, _drawn(np.flatnonzero(reasons == ""), ids, seed))
    wanted = {reason: EACH for shard in shards for reason in shard.left["dropped"]}
    wanted |= {PASSAGES: 0, EMPTIED: 0, CUT: 0}  # these reasons are not in verdicts
    out: list[Sample] = []
    for shard in shards:
        here = [reason for reason in shard.left["dropped"] if wanted[reason]]
        if not here:
            continue
        reasons, ids = _reasons(shard, work)
        for reason in here:
            rows = _drawn(np.flatnonzero(reasons == reason), ids, seed)[: wanted[reason]]
            out += _read(shard, work, form, reasons, rows)
            wanted[reason] -= len(rows)
    return kept + sorted(out, key=lambda sample: (sample.reason, sample.source, sample.id))


def _reasons(shard: DocumentShard, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """(object [documents], uint64 [documents]): why each document of a shard was dropped ('': it was not); ids."""
    ids = pq.read_table(work / shard.documents["name"], columns=["id"])["id"].to_numpy()
    reasons = np.full(len(ids), "", object)
    for entry in shard.verdicts:
        table = pq.read_table(work / entry["name"], columns=["row", "reason"])
        rows, given = table["row"].to_numpy(), np.array(table["reason"].to_pylist(), object)
        reasons[rows] = np.where(reasons[rows] == "", given, reasons[rows])
    return reasons, ids


def _drawn(rows: np.ndarray, ids: np.ndarray, seed: int) -> list[int]:
    return rows[np.argsort(draws(ids[rows], seed + 1), kind="stable")[:EACH]].tolist()


def _read(shard: DocumentShard, work: Path, form: str, reasons: np.ndarray, rows: Iterable[int]) -> list[Sample]:
    found = []
    with pq.ParquetFile(work / shard.documents["name"]) as file:
        for wanted in rows:
            first = group = 0
            while wanted >= first + file.metadata.row_group(group).num_rows:
                first += file.metadata.row_group(group).num_rows
                group += 1
            table = file.read_row_group(group, columns=["id", "uri", "text"], use_threads=False)
            row = table.slice(wanted - first, 1).to_pylist()[0]
            whole = row["text"] if form == TEXT else shown(row["text"], form)
            text = whole[:CHARACTERS]
            found.append(Sample(reasons[wanted], shard.source.name, row["uri"], row["id"], text, text == whole))
    return found
