"""The user's own stage: a function that gets one document at a time, and keeps, changes or drops it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptjax.config import ConfigError
from gptjax.config.named_functions import called, code_hash, named_function
from gptjax.corpus.documents import DocumentWriter, is_blank
from gptjax.corpus.engine import Task
from gptjax.corpus.engine.journal import rows_place
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.documents import batches
from gptjax.corpus.stages.verdicts import write_verdicts

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

FIELD = "stages"  # the field of the config, for messages
GIVEN = ("text", "uri", "source", "license", "language")  # the parts of a document that the function gets


def apply_function(task: Task, folder: Path) -> dict:
    """Writes verdicts.parquet on the documents that the function drops, and documents.parquet if it changes any.

    inputs: documents, verdicts, code (the hash of the function's file). options: name, function, and its options.

    Reports documents and bytes that the function was given, and how many of them it changed and dropped.
    """
    name, text_of_function = task.options["name"], task.options["function"]
    function = named_function(FIELD, text_of_function)
    if code_hash(text_of_function) != task.inputs["code"]:
        raise ConfigError(
            f"{FIELD}: {name}: the file of {text_of_function!r} is not the same in all processes, or has changed since "
            "the command was started; start it again"
        )
    out = _rows_that_are_out(task)
    dropped: list[tuple[int, int]] = []
    documents = size = changed = 0
    path = folder / "documents.parquet"
    with DocumentWriter(path) as writer:
        for first_row, batch in batches(task, by_batch=False):
            texts = batch["text"].to_pylist()
            columns = {each: batch[each].to_pylist() for each in GIVEN if each != "text"}
            ids = batch["id"].to_numpy()
            for place, text in enumerate(texts):
                row = first_row + place
                if row in out or not task.journal.begin(rows_place(row, row + 1)):
                    continue
                documents += 1
                size += len(text.encode())
                document = {"text": text, **{each: values[place] for each, values in columns.items()}}
                kept = _kept(name, text_of_function, function, document, task.options["options"])
                if kept is None:
                    dropped.append((row, int(ids[place])))
                elif kept != text:
                    texts[place] = kept
                    changed += 1
            column = pa.array(texts, pa.large_string())
            batch = batch.set_column(batch.schema.get_field_index("text"), "text", column)
            writer.append_batch(batch, pc.sum(pc.binary_length(column)).as_py() or 0)
    if not changed:
        path.unlink()
    rows, ids = np.array(dropped, np.uint64).reshape(-1, 2).T
    nothing = np.zeros(len(rows), np.uint64)
    write_verdicts(folder / "verdicts.parquet", rows.astype(np.uint32), ids, [name] * len(rows), nothing)
    return {"documents": documents, "bytes": size, "changed": changed, "dropped": len(dropped)}


def _rows_that_are_out(task: Task) -> set[int]:
    out: set[int] = set()
    for entry in task.inputs["verdicts"]:
        table = pq.read_table(task.path(entry), columns=["row", "reason"])
        out.update(table.filter(pc.not_equal(table["reason"], ""))["row"].to_pylist())
    return out


def _kept(
    name: str, text_of_function: str, function: Callable, document: Mapping[str, str], options: Mapping[str, Any]
) -> str | None:
    """The text that replaces the document; None if the document is dropped, also for a blank text."""
    kept = called(FIELD, text_of_function, lambda: function(document, **options))
    if kept is None or (isinstance(kept, str) and is_blank(kept)):
        return None
    problem = "" if isinstance(kept, str) else f"not {kept!r}"
    if not problem:
        try:
            kept.encode()
            return kept
        except UnicodeEncodeError:
            problem = "and the text must be valid Unicode"
    raise ConfigError(
        f"{FIELD}: {name}: {text_of_function!r} must return the text to keep, or None to drop the document, {problem}"
    )


class OwnStage(CorpusStage):
    """The stage that `gptjax.corpus.config.stage(…)` describes."""

    function = staticmethod(apply_function)

    def __init__(self, fields: Any):
        self.name, self.version, self.after = fields.name, fields.version, fields.after
        self._function = fields.function
        self._libraries = tuple(fields.libraries)
        self._options = dict(fields.options)

    def check(self, corpus: Corpus) -> None:
        named_function(FIELD, self._function)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {"name": self.name, "function": self._function, "options": self._options}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        made_by = versions_of(self._libraries)
        return corpus.inputs(lambda shard: {"code": code_hash(self._function), "libraries": made_by})

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.documents = result["files"].get("documents.parquet", shard.documents)
            shard.verdicts.append(result["files"]["verdicts.parquet"])
        counts = {
            count: sum(result["report"][count] for result in results)
            for count in ("documents", "bytes", "changed", "dropped")
        }
        found = {"function": self._function, "version": self.version, **counts}
        corpus.sections.setdefault("own_stages", {})[self.name] = found
