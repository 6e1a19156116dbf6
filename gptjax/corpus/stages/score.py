"""The user's scores: a function gives each document of a batch a number, which rules and sampling weights can use.

def quality(documents, power=1.0):          # each has text, uri, source, license, language
    return [min(len(d["text"]) / 1000, 1) ** power for d in documents]

config.scores = (score(name="quality", function="my_ideas:quality", min=0.2, weight=True, power=0.5),)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptjax.config import ConfigError
from gptjax.config.named_functions import called, code_hash, named_function
from gptjax.corpus.cleaning.rules import Rule
from gptjax.corpus.engine import Task
from gptjax.corpus.engine.journal import rows_set_aside
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.clean import cleaned_shards
from gptjax.corpus.stages.documents import batches, set_aside_in

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

FIELD = "scores"  # the field of the config, for messages
FILE = "scores.parquet"
GIVEN = ("text", "uri", "source", "license", "language")  # the parts of a document that the function gets
PREFIX = "score_"  # of the columns


def score_documents(task: Task, folder: Path) -> dict:
    """Writes scores.parquet: `id`, and a float64 column for each score; a row for each document.

    inputs: documents, code: name → hash of the function's file. options: scores (name, function, options of each).
    Reports documents, bytes, and of each score the mean, least and greatest value.
    """
    functions = {one["name"]: _function(one, task.inputs["code"]) for one in task.options["scores"]}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in functions}
    ids: list[np.ndarray] = []
    size = 0
    set_aside = rows_set_aside(task.journal)
    for first, batch in batches(task):
        given = ~set_aside_in(batch, first, set_aside)
        documents = batch.filter(pa.array(given)).select(GIVEN).to_pylist()
        size += sum(len(document["text"].encode()) for document in documents)
        for one in task.options["scores"]:
            scores = np.full(len(batch), np.nan)  # of documents that are set aside
            if documents:
                scores[given] = _scores(one, functions[one["name"]], documents)
            columns[one["name"]].append(scores)
        ids.append(batch["id"].to_numpy())
    found = {name: np.concatenate([*parts, np.zeros(0)]) for name, parts in columns.items()}
    table = {"id": np.concatenate([*ids, np.zeros(0, np.uint64)])}
    table |= {f"{PREFIX}{name}": values for name, values in found.items()}
    pq.write_table(pa.table(table), folder / FILE, compression="zstd")
    figures = {
        name: [float(f(values)) for f in (np.nanmean, np.nanmin, np.nanmax)]
        for name, values in found.items()
        if np.isfinite(values).any()
    }
    return {"documents": len(table["id"]), "bytes": size, "scores": figures}


def _function(one: Mapping[str, Any], hashes: Mapping[str, str]) -> Any:
    function = named_function(FIELD, one["function"])
    if code_hash(one["function"]) != hashes[one["name"]]:
        raise ConfigError(
            f"{FIELD}: {one['name']}: the file of {one['function']!r} is not the same in all processes, or has changed "
            "since the command was started; start it again"
        )
    return function


def _scores(one: Mapping[str, Any], function: Any, documents: list[dict[str, str]]) -> np.ndarray:
    """float64 [documents]."""
    given = called(FIELD, one["function"], lambda: list(function(documents, **one["options"])))
    problem = ""
    if len(given) != len(documents):
        problem = f"must return a number for each of {len(documents)} documents, not {len(given)}"
    elif odd := [value for value in given if not isinstance(value, int | float | np.number | np.bool_)]:
        problem = f"must return numbers, not {odd[0]!r}"
    else:
        values = np.array(given, np.float64)
        if not np.isfinite(values).all():
            problem = "must return finite numbers"
        elif one["weight"] and (values < 0).any():
            problem = f"returned {values.min():g}: a weight must not be negative"
    if problem:
        raise ConfigError(f"{FIELD}: {one['name']}: {one['function']!r} {problem}")
    return values


def rules_of(scores: Sequence[Any]) -> list[dict[str, Any]]:
    """The rules that the limits of scores make, as the fields of cleaning.rules.Rule."""
    return [
        vars(Rule("score", f"{end}_{one.name}", f"{PREFIX}{one.name}", float(one[end])))
        for one in scores
        for end in ("min", "max")
        if one[end] is not None
    ]


class Score(CorpusStage):
    """The scores of the config, after cleaning."""

    name, function = "score", staticmethod(score_documents)

    def check(self, corpus: Corpus) -> None:
        for one in corpus.config.scores:
            named_function(FIELD, one.function)

    def is_wanted(self, corpus: Corpus) -> bool:
        return bool(corpus.config.scores)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {
            "scores": [
                {"name": one.name, "function": one.function, "version": one.version, "weight": one.weight,
                 "options": dict(one.options)}
                for one in corpus.config.scores
            ]
        }  # fmt: skip

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        code = {one.name: code_hash(one.function) for one in corpus.config.scores}
        made_by = versions_of(library for one in corpus.config.scores for library in one.libraries)
        return corpus.inputs(lambda shard: {"code": code, "libraries": made_by}, cleaned_shards(corpus))

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(cleaned_shards(corpus), results):
            shard.files["score"] = result["files"]


def weights_of(path: Path, names: Sequence[str]) -> np.ndarray:
    """float64 [documents of the shard]: the product of these scores."""
    table = pq.read_table(path, columns=[f"{PREFIX}{name}" for name in names])
    return np.prod([column.to_numpy() for column in table.columns], axis=0)
