"""All that is known about every document, as Parquet files beside the shards of tokens: documents-00000.parquet …

  id, parent_id, source, uri, license, language, text   the document as it was cleaned (gptjax/corpus/documents.py)
  reason           why it was dropped; '' if it stays
  representative   the document that stays in its place, if it is a copy; 0: none
  bytes, words, …  the figures that rules judge (gptjax/corpus/cleaning/statistics.py); null without cleaning
  score_NAME       the config's scores (stages/score.py)

A row's file and place are those of the shard and row that `python -m gptjax.trace` shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptjax.corpus.engine import Task
from gptjax.corpus.stages.base import CorpusStage

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

FILE = "documents.parquet"


def join_columns(task: Task, folder: Path) -> dict:
    """Writes documents.parquet. inputs: documents, verdicts, more: files with a row for each document."""
    with pq.ParquetFile(task.path(task.inputs["documents"])) as file:
        count = file.metadata.num_rows
        reasons, representatives = np.full(count, "", object), np.zeros(count, np.uint64)
        for entry in task.inputs["verdicts"]:
            verdicts = pq.read_table(task.path(entry))
            rows = verdicts["row"].to_numpy()
            first = reasons[rows] == ""
            reasons[rows[first]] = verdicts["reason"].to_numpy()[first]
            found = verdicts["representative"].to_numpy()
            representatives[rows[found > 0]] = found[found > 0]
        columns = {"reason": pa.array(reasons, pa.string()), "representative": pa.array(representatives)}
        for entry in task.inputs["more"]:
            table = pq.read_table(task.path(entry))
            columns |= {name: table[name].combine_chunks() for name in table.column_names if name not in _DOCUMENT}
        size = first_row = 0
        writer = None
        for group in range(file.num_row_groups):
            documents = file.read_row_group(group)
            here = slice(first_row, first_row + len(documents))
            for name, column in columns.items():
                documents = documents.append_column(name, column[here])
            writer = writer or pq.ParquetWriter(folder / FILE, documents.schema, compression="zstd")
            writer.write_table(documents)
            size += documents["text"].nbytes
            first_row += len(documents)
        if writer:
            writer.close()
    return {"documents": count, "bytes": size}


_DOCUMENT = ("id", "language")  # columns that the document itself has


class JoinColumns(CorpusStage):
    """The files, if the config asks for them."""

    name, function = "columns", staticmethod(join_columns)

    def is_wanted(self, corpus: Corpus) -> bool:
        return corpus.config.documents

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        def more(shard: Any) -> dict[str, Any]:
            files = [
                shard.files.get("clean", {}).get("statistics.parquet"),
                shard.files.get("score", {}).get("scores.parquet"),
            ]
            return {"more": [entry for entry in files if entry]}

        return corpus.inputs(more)

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.files["columns"] = result["files"]
