"""Finds passages that the corpus contains more than once: hashes them by shard, joins the hashes, marks the copies.

In the order of the shards, the first copy stays. No text is rewritten: spans of characters say what to leave out, and
verdicts.remaining does so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptjax.config import RunError
from gptjax.corpus.duplicates.passages import Passages, later_copies
from gptjax.corpus.engine import Task
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.verdicts import remaining

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

SPANS = pa.schema({"row": pa.uint32(), "start": pa.int64(), "end": pa.int64()})  # of characters; rows ascending


def hash_passages(task: Task, folder: Path) -> dict:
    """Writes hashes.npy. inputs: documents, verdicts. options: fields of Passages."""
    passages = Passages(**task.options)
    hashes = [np.zeros(0, np.uint64)]
    documents = size = 0
    for some in remaining(task):
        hashes.append(passages.hashes(some.texts)[0])
        documents += len(some.texts)
        size += sum(len(text.encode()) for text in some.texts)
    np.save(folder / "hashes.npy", np.concatenate(hashes))
    return {"documents": documents, "bytes": size, "passages": sum(map(len, hashes))}


def join_passages(task: Task, folder: Path) -> dict:
    """Writes for each shard later-NNNNN.npy: bool [passages], whether an equal passage came before.

    inputs: shards: hashes of each. options: memory_megabytes, for the join; one byte per passage is needed in addition.
    """
    paths = [task.path(entry) for entry in task.inputs["shards"]]
    counts = [len(np.load(path, mmap_mode="r")) for path in paths]
    memory = task.options["memory_megabytes"] << 20
    later = later_copies(map(np.load, paths), sum(counts), folder, memory)
    for number, marks in enumerate(np.split(later, np.cumsum(counts)[:-1])):
        np.save(folder / f"later-{number:05d}.npy", marks)
    return {"passages": sum(counts), "later_copies": int(np.count_nonzero(later))}


def mark_passages(task: Task, folder: Path) -> dict:
    """Writes spans.parquet (SPANS). inputs: documents, verdicts, later. options: fields of Passages.

    Reports documents and bytes searched, documents that have later copies, and the characters in these copies.
    """
    passages, later = Passages(**task.options), np.load(task.path(task.inputs["later"]))
    rows, spans = [np.zeros(0, np.uint32)], [np.zeros((0, 2), np.int64)]
    first = documents = size = 0
    for some in remaining(task):
        documents += len(some.texts)
        size += sum(len(text.encode()) for text in some.texts)
        _, offsets = passages.hashes(some.texts)
        counted = np.concatenate([[0], np.cumsum(later[first : first + offsets[-1]])])
        for number in np.flatnonzero(counted[offsets[1:]] > counted[offsets[:-1]]).tolist():
            marks = later[first + offsets[number] : first + offsets[number + 1]]
            spans.append(passages.spans(some.texts[number], marks))
            rows.append(np.full(len(spans[-1]), some.rows[number], np.uint32))
        first += int(offsets[-1])
    if first != len(later):  # a document was set aside here, whose passages were hashed
        raise RunError(f"mark: {first} passages, but {len(later)} were hashed")
    row, (start, end) = np.concatenate(rows), np.concatenate(spans).T
    pq.write_table(pa.table([row, start, end], schema=SPANS), folder / "spans.parquet", compression="zstd")
    found = {"documents_with_copies": len(rows) - 1, "characters": int(np.sum(end - start))}
    return {"documents": documents, "bytes": size, **found}


class _OfPassages(CorpusStage):
    def is_wanted(self, corpus: Corpus) -> bool:
        return corpus.config.passages.kind != "none"

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {name: corpus.config.passages[name] for name in ("kind", "words")}


class HashPassages(_OfPassages):
    """Every passage of every document as a hash."""

    name, function = "passages", staticmethod(hash_passages)

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.files["passages"] = result["files"]


class JoinPassages(_OfPassages):
    """Which of all passages came before: one task."""

    name, function = "join", staticmethod(join_passages)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {"memory_megabytes": corpus.config.passages.memory_megabytes}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return [{"shards": [shard.files["passages"]["hashes.npy"] for shard in corpus.shards]}], [0]

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        (joined,) = results
        for shard in corpus.shards:
            shard.files["join"] = {"later": joined["files"][f"later-{shard.number:05d}.npy"]}
        corpus.sections["passages"] = joined["report"]


class MarkPassages(_OfPassages):
    """The places of later copies in their documents."""

    name, function = "mark", staticmethod(mark_passages)

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return corpus.inputs(lambda shard: shard.files["join"])

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        action = corpus.config.passages.action
        if action == "remove":
            for shard, result in zip(corpus.shards, results):
                shard.spans = result["files"]["spans.parquet"]
        found = {
            name: sum(result["report"][name] for result in results) for name in ("documents_with_copies", "characters")
        }
        corpus.sections["passages"] = {**self.options(corpus), "action": action, **corpus.sections["passages"], **found}
