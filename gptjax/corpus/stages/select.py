"""Applies rules to the figures of documents: verdicts on documents to which a rule objects, with examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.cleaning.rules import OwnRule, decide, first_objections, rule_of
from gptjax.corpus.engine import Task
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.clean import cleaned_shards
from gptjax.corpus.stages.documents import Noted
from gptjax.corpus.stages.score import PREFIX, rules_of
from gptjax.corpus.stages.verdicts import write_verdicts

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

EXAMPLES = 3  # examples per reason and shard
EXAMPLE_CHARACTERS = 200
KEPT = "kept"  # the 'reason' of examples that stay


def select(task: Task, folder: Path) -> dict:
    """Writes verdicts.parquet.

    inputs: documents, statistics (files of clean.py), rules: the fields of each rule (cleaning/rules.py); languages: if
    given, only documents detected as one of these with `confidence` stay; scores, if there are any. options: none.

    Reports documents and bytes; reasons: reason → [documents to which it is the first objection, documents to which it
    is any objection]; examples: reason, or KEPT → id, uri and first characters of some documents.
    """
    rules = [rule_of(fields) for fields in task.inputs["rules"]]
    columns_of_rules = {rule.column for rule in rules if not rule.column.startswith(PREFIX)}
    wanted = {"id", "bytes", "characters", "language", "language_confidence"} | columns_of_rules - {OwnRule.column}
    table = pq.read_table(task.path(task.inputs["statistics"]), columns=sorted(wanted))
    columns = {name: table[name].to_numpy() for name in wanted}
    if scores := task.inputs.get("scores"):
        of_scores = pq.read_table(task.path(scores))
        columns |= {name: of_scores[name].to_numpy() for name in of_scores.column_names if name.startswith(PREFIX)}
    if OwnRule.column in columns_of_rules:
        texts = pq.read_table(task.path(task.inputs["documents"]), columns=[OwnRule.column])
        columns[OwnRule.column] = Noted(task.journal, texts[OwnRule.column].to_numpy())
    objections = decide(columns, rules, task.inputs["languages"], task.inputs["confidence"])
    reasons = first_objections(objections)
    out = np.flatnonzero(reasons != "")
    write_verdicts(folder / "verdicts.parquet", out, columns["id"][out], reasons[out], np.zeros(len(out), np.uint64))
    return {
        "documents": len(reasons),
        "bytes": int(columns["bytes"].sum()),
        "reasons": {
            reason: [int(np.count_nonzero(reasons == reason)), int(np.count_nonzero(against))]
            for reason, against in objections.items()
            if against.any()
        },
        "examples": _examples(task.path(task.inputs["documents"]), reasons),
    }


def _examples(path: Path, reasons: np.ndarray) -> dict[str, list[dict[str, str]]]:
    """The first documents for each reason; only their row groups are read."""
    rows = {int(row): KEPT for row in np.flatnonzero(reasons == "")[:EXAMPLES]}
    for reason in np.unique(reasons[reasons != ""]):
        rows |= {int(row): str(reason) for row in np.flatnonzero(reasons == reason)[:EXAMPLES]}
    examples: dict[str, list[dict[str, str]]] = {}
    with pq.ParquetFile(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if here := sorted(row for row in rows if first <= row < first + count):
                table = file.read_row_group(group, ["id", "uri", "text"], use_threads=False)
                for row in here:
                    examples.setdefault(rows[row], []).append(_example(table.slice(row - first, 1).to_pylist()[0]))
            first += count
    return dict(sorted(examples.items()))


def _example(document: Mapping) -> dict[str, str]:
    text = document["text"][:EXAMPLE_CHARACTERS]
    return {"id": f"{document['id']:016x}", "uri": document["uri"], "text": text}


class Select(CorpusStage):
    """Verdicts by the rules of each source's recipe."""

    name, function = "select", staticmethod(select)

    def is_wanted(self, corpus: Corpus) -> bool:
        return bool(cleaned_shards(corpus))

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        settings, of_scores = corpus.config.cleaning, rules_of(corpus.config.scores)

        def more(shard: Any) -> dict[str, Any]:
            found = {
                "statistics": shard.files["clean"]["statistics.parquet"],
                **cleaning.verdict(settings, shard.source),
            }
            if of_scores:
                found |= {"rules": [*found["rules"], *of_scores], "scores": shard.files["score"]["scores.parquet"]}
            return found

        return corpus.inputs(more, cleaned_shards(corpus))

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(cleaned_shards(corpus), results):
            shard.verdicts.append(result["files"]["verdicts.parquet"])
            shard.selected = result["report"]
