"""Indexes evaluation sets, finds the documents that contain their text, and the items that the corpus contains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptjax.corpus.contamination import evaluations
from gptjax.corpus.contamination import index as indexes
from gptjax.corpus.contamination.evaluations import read_items
from gptjax.corpus.contamination.index import Index
from gptjax.corpus.contamination.match import Match, find, passage
from gptjax.corpus.engine import Task
from gptjax.corpus.formats import encoding
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.verdicts import remaining, write_verdicts

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

REASON = "holds evaluation text: {}"
HITS = pa.schema(
    {
        "row": pa.uint32(),
        "id": pa.uint64(),  # of the document
        "set": pa.string(),
        "item": pa.string(),  # the item that shares most n-grams with it
        "ngrams": pa.uint32(),  # different n-grams of the set in the document
        "text": pa.string(),  # the first shared passage
    }
)
EXAMPLES = 5


def index_evaluations(task: Task, folder: Path) -> dict:
    """Writes index.npz. inputs: sets (evaluations.listed). options: ngram, least_words."""
    sets = [(one["name"], read_items(one)) for one in task.inputs["sets"]]
    index = indexes.build(sets, task.options["ngram"], task.options["least_words"])
    index.save(folder / "index.npz")
    return {"ngrams": index.counts[0], "short_texts": index.counts[1]}


def contaminate(task: Task, folder: Path) -> dict:
    """Writes hits.parquet, a row for each document and set that share n-grams; verdicts.parquet, on documents that
    share least_hits n-grams with a set; grams.npz: the grams that were found, and those in documents that stay.

    inputs: documents, verdicts, index. options: action, least_hits.
    """
    index = indexes.load(task.path(task.inputs["index"]))
    remove, least = task.options["action"] == "remove", task.options["least_hits"]
    hits: dict[str, list] = {name: [] for name in HITS.names}
    out: list[tuple[int, int, str]] = []
    found, left = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    documents = size = 0
    for some in remaining(task):
        documents += len(some.texts)
        size += sum(len(text.encode()) for text in some.texts)
        for match in find(index, some.texts):
            row, id_ = int(some.rows[match.text]), int(some.ids[match.text])
            counts = _add_hits(hits, index, match, row, id_, some.texts[match.text])
            found.append(match.grams)
            most = max(counts, key=counts.__getitem__)
            if remove and counts[most] >= least:
                out.append((row, id_, REASON.format(most)))
            else:
                left.append(match.grams)
    pq.write_table(pa.table(hits, HITS), folder / "hits.parquet", compression="zstd")
    rows, ids, reasons = zip(*out) if out else ((), (), ())
    write_verdicts(
        folder / "verdicts.parquet",
        *(np.array(rows, np.uint32), np.array(ids, np.uint64), reasons, np.zeros(len(out), np.uint64)),
    )
    np.savez(folder / "grams.npz", found=np.unique(np.concatenate(found)), left=np.unique(np.concatenate(left)))
    return {"documents": documents, "bytes": size, "contaminated": len(set(hits["row"])), "removed": len(out)}


def _add_hits(hits: dict[str, list], index: Index, match: Match, row: int, id_: int, text: str) -> dict[str, int]:
    """Adds a row for each set of the match; returns how many n-grams each has in common with the document."""
    place, item = index.pairs_of(match.grams)
    set_of = index.set_of_item[item]
    counts = {}
    for number in np.unique(set_of).tolist():
        here = set_of == number
        of_set = np.unique(place[here])
        shared = Match(match.text, match.grams[of_set], match.words[of_set])
        items, times = np.unique(item[here], return_counts=True)
        name = index.sets[number]
        counts[name] = len(np.unique(shared.grams))
        cells = (row, id_, name, index.items[items[np.argmax(times)]], counts[name], passage(index, text, shared))
        for column, cell in zip(HITS.names, cells):
            hits[column].append(cell)
    return counts


def overlap(task: Task, folder: Path) -> dict:
    """Writes items.parquet: every evaluation item that the corpus contains at least in part.

    inputs: index; shards: [hits, grams] of each. Reports by set: items; contaminated items, which share an n-gram with
    any document, and their share; left: those that share one with a document that stays; documents that share one;
    too_short: items too short to check; some examples.
    """
    index = indexes.load(task.path(task.inputs["index"]))
    found, left = np.zeros(sum(index.counts), bool), np.zeros(sum(index.counts), bool)
    documents: Counter[str] = Counter()
    examples: dict[str, dict[str, dict]] = {name: {} for name in index.sets}
    for hits, grams in task.inputs["shards"]:
        with np.load(task.path(grams)) as file:
            found[file["found"]] = left[file["left"]] = True
        for hit in pq.read_table(task.path(hits)).to_pylist():
            documents[hit["set"]] += 1
            _keep_example(examples[hit["set"]], hit)
    in_item, in_left, of_item = (
        np.bincount(index.item_of_pair[chosen], minlength=len(index.items))
        for chosen in (found[index.gram_of_pair], left[index.gram_of_pair], slice(None))
    )
    listed = np.flatnonzero(in_item)
    columns = {
        "set": [index.sets[number] for number in index.set_of_item[listed]],
        "item": [index.items[number] for number in listed],
        "ngrams": of_item[listed],
        "found": in_item[listed],
        "left": in_left[listed],
    }
    pq.write_table(pa.table(columns), folder / "items.parquet", compression="zstd")
    report = {}
    for number, name in enumerate(index.sets):
        here = index.set_of_item == number
        contaminated = int(np.count_nonzero(here & (in_item > 0)))
        report[name] = {
            "items": int(np.count_nonzero(here)),
            "contaminated": contaminated,
            "share": round(contaminated / np.count_nonzero(here), 4),
            "left": int(np.count_nonzero(here & (in_left > 0))),
            "too_short": int(index.too_short[number]),
            "documents": documents[name],
            "examples": list(examples[name].values()),
        }
    return {"sets": report}


def _keep_example(kept: dict[str, dict], hit: dict) -> None:
    """Keeps the hits with most n-grams, one per item."""
    hit = {"item": hit["item"], "document": hit["id"], "ngrams": hit["ngrams"], "text": hit["text"]}
    if hit["item"] in kept and kept[hit["item"]]["ngrams"] >= hit["ngrams"]:
        return
    kept.pop(hit["item"], None)
    kept[hit["item"]] = hit
    best = sorted(kept.values(), key=lambda one: (-one["ngrams"], one["item"]))[:EXAMPLES]
    kept.clear()
    kept.update({one["item"]: one for one in best})


class _OfEvaluations(CorpusStage):
    def is_wanted(self, corpus: Corpus) -> bool:
        return bool(corpus.evaluations)


class IndexEvaluations(_OfEvaluations):
    """The index of all evaluation sets: one task."""

    name, function = "evaluations", staticmethod(index_evaluations)

    def check(self, corpus: Corpus) -> None:
        corpus.evaluations = evaluations.listed(corpus.config.contamination.sets)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {name: corpus.config.contamination[name] for name in ("ngram", "least_words")}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return [{"sets": corpus.evaluations, "libraries": versions_of(encoding.DETECTORS)}], [0]

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        corpus.index = results[0]["files"]["index.npz"]


class FindEvaluationText(_OfEvaluations):
    """Verdicts on documents that contain evaluation text."""

    name, function = "contaminate", staticmethod(contaminate)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {name: corpus.config.contamination[name] for name in ("action", "least_hits")}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return corpus.inputs(lambda shard: {"index": corpus.index})

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.verdicts.append(result["files"]["verdicts.parquet"])
            shard.files["contaminate"] = result["files"]


class FindItems(_OfEvaluations):
    """Which evaluation items the corpus contains: one task."""

    name, function = "overlap", staticmethod(overlap)

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        found = [
            [shard.files["contaminate"][name] for name in ("hits.parquet", "grams.npz")] for shard in corpus.shards
        ]
        return [{"index": corpus.index, "shards": found}], [0]

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        (found,) = results
        settings = {
            name: corpus.config.contamination[name] for name in ("ngram", "least_words", "least_hits", "action")
        }
        items = found["files"]["items.parquet"]
        corpus.sections["contamination"] = {**settings, **found["report"], "items": items}
