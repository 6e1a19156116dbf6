"""Searches over all documents, which tell the parts what to leave out: copies, repeated passages, evaluation text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gptjax.corpus.contamination import evaluations
from gptjax.corpus.document_shards import DocumentShard, inputs_of
from gptjax.corpus.duplicates.earlier import earlier_inputs
from gptjax.corpus.duplicates.sketch import bands_and_rows
from gptjax.corpus.engine import Stage
from gptjax.corpus.formats import encoding
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.contaminate import contaminate, index_evaluations, overlap
from gptjax.corpus.stages.copies import find_copies, sketch
from gptjax.corpus.stages.passages import hash_passages, join_passages, mark_passages


class Searches:
    """The searches that a config asks for.

    Args:
      run: a stage, its inputs and their bytes → results, as `run_stage` gives them.

    Raises:
      ConfigError: an earlier corpus cannot be compared with, or an evaluation set is not there.
    """

    def __init__(self, config: Any, run: Callable[..., list[dict]]):
        self._config, self._run = config, run
        self._earlier = earlier_inputs(config.duplicates.earlier, sketch_options(config))
        self._evaluations = evaluations.listed(config.contamination.sets)

    def copies(self, shards: list[DocumentShard]) -> dict | None:
        """Gives every shard its verdicts on copies; returns counts."""
        asked = self._config.duplicates
        if asked.kind == "none":
            return None
        options = sketch_options(self._config)
        results = self._run(Stage("sketch", sketch, options=options), *inputs_of(shards))
        sketched = [[shard.documents, result["files"]["sketches.npz"]] for shard, result in zip(shards, results)]
        options = {name: asked[name] for name in ("threshold", "scope", "verify", "memory_megabytes")}
        options["sources"] = [source.name for source in self._config.sources]
        inputs = {"shards": sketched, "earlier": self._earlier}
        (found,) = self._run(Stage("copies", find_copies, version=2, options=options), [inputs], [0])
        for shard in shards:
            shard.verdicts.append(found["files"][f"verdicts-{shard.number:05d}.parquet"])
        return {**found["report"], "file": found["files"]["clusters.parquet"], "sketched": sketched}

    def passages(self, shards: list[DocumentShard]) -> dict | None:
        """Tells every shard its passages to leave out, where that is asked; returns counts."""
        asked = self._config.passages
        if asked.kind == "none":
            return None
        options = {name: asked[name] for name in ("kind", "words")}
        hashed = self._run(Stage("passages", hash_passages, options=options), *inputs_of(shards))
        join = Stage("join", join_passages, options={"memory_megabytes": asked.memory_megabytes})
        (joined,) = self._run(join, [{"shards": [result["files"]["hashes.npy"] for result in hashed]}], [0])
        later = {shard.number: joined["files"][f"later-{shard.number:05d}.npy"] for shard in shards}
        inputs, sizes = inputs_of(shards, lambda shard: {"later": later[shard.number]})
        marked = self._run(Stage("mark", mark_passages, options=options), inputs, sizes)
        if asked.action == "remove":
            for shard, result in zip(shards, marked):
                shard.spans = result["files"]["spans.parquet"]
        found = {
            name: sum(result["report"][name] for result in marked) for name in ("documents_with_copies", "characters")
        }
        return {**options, "action": asked.action, **joined["report"], **found}

    def index(self) -> dict | None:
        """The entry of the index of all evaluation sets."""
        if not self._evaluations:
            return None
        options = {name: self._config.contamination[name] for name in ("ngram", "least_words")}
        stage = Stage("evaluations", index_evaluations, options=options)
        (indexed,) = self._run(stage, [{"sets": self._evaluations, "libraries": versions_of(encoding.DETECTORS)}], [0])
        return indexed["files"]["index.npz"]

    def contamination(self, shards: list[DocumentShard], index: dict | None) -> dict | None:
        """Gives every shard its verdicts on documents that hold evaluation text; returns what stands in the corpus."""
        if index is None:
            return None
        asked = self._config.contamination
        stage = Stage("contaminate", contaminate, options={name: asked[name] for name in ("action", "least_hits")})
        results = self._run(stage, *inputs_of(shards, lambda shard: {"index": index}))
        for shard, result in zip(shards, results):
            shard.verdicts.append(result["files"]["verdicts.parquet"])
        found = [[result["files"][name] for name in ("hits.parquet", "grams.npz")] for result in results]
        (result,) = self._run(Stage("overlap", overlap), [{"index": index, "shards": found}], [0])
        options = {name: asked[name] for name in ("ngram", "least_words", "least_hits", "action")}
        return {**options, **result["report"], "items": result["files"]["items.parquet"]}


def sketch_options(config: Any) -> dict[str, Any]:
    """How documents are hashed for the search for copies."""
    asked = config.duplicates
    bands, rows = bands_and_rows(asked.threshold, asked.permutations) if asked.kind == "near" else (0, 1)
    return {"unit": asked.unit, "ngram": asked.ngram, "bands": bands, "rows": rows, "seed": config.seed}
