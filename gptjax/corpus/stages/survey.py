"""Counts what is left of a shard, by split, and what is dropped, by reason; characters, if the tokenizer needs them.

It runs before the tokenizer is trained and the text is encoded, so that a corpus that cannot be split is refused early.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptjax.config import ConfigError
from gptjax.corpus.engine import Task
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.histogram import Histogram, reach
from gptjax.corpus.stages.splits import CUT, split_texts
from gptjax.corpus.stages.verdicts import remaining

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus


def survey(task: Task, folder: Path) -> dict:
    """inputs: documents, verdicts, most_held_out (bytes of a document). options: split (fraction, by, seed), characters
    (whether to count them).

    Reports documents and bytes that are left, the same by split (a document whose tail is held out stands in both, with
    a part of its bytes in each), languages, licenses and lengths of the documents
    (histogram.py), and dropped: reason → [documents, bytes].
    """
    count = 0
    dropped: dict[str, list[int]] = {}
    documents: Counter[str] = Counter()
    size: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    languages, licenses, lengths = Histogram(), Histogram(), Histogram()
    for some in remaining(task):
        count += len(some.texts)
        sizes = [len(text.encode()) for text in some.texts]
        languages.add(some.languages, sizes)
        licenses.add(some.licenses, sizes)
        lengths.add(map(reach, sizes), sizes)
        cut = sum(sizes)
        most = task.inputs["most_held_out"]
        for _, split, text in split_texts(some.texts, some.split_keys, **task.options["split"], most_bytes=most):
            length = len(text.encode())
            documents[split] += 1
            size[split] += length
            cut -= length
            if split == "train" and task.options["characters"]:
                characters.update(text)
        for reason, (number, bytes_) in {**some.dropped, **({CUT: (0, cut)} if cut else {})}.items():
            before = dropped.get(reason, [0, 0])
            dropped[reason] = [before[0] + number, before[1] + bytes_]
    if task.options["characters"]:
        (folder / "characters.json").write_text(json.dumps(dict(sorted(characters.items()))))
    return {
        "documents": count,
        "bytes": size.total(),
        "splits": {split: {"documents": documents[split], "bytes": size[split]} for split in sorted(documents)},
        "languages": languages.counts,
        "licenses": licenses.counts,
        "lengths": lengths.counts,
        "dropped": dict(sorted(dropped.items())),
    }


class Survey(CorpusStage):
    """What is left of every shard; split by tails where that is left to us and whole documents are too few."""

    name, version, function = "survey", 4, staticmethod(survey)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {"split": corpus.split, "characters": corpus.config.tokenizer.name == "char"}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return corpus.inputs(corpus.held_out)

    def run(self, corpus: Corpus) -> None:
        super().run(corpus)
        count = sum(shard.left["documents"] for shard in corpus.shards)
        if not count:
            reasons = sorted({reason for shard in corpus.shards for reason in shard.left["dropped"]})
            total = sum(shard.count for shard in corpus.shards)
            raise ConfigError(f"no document is left of {total}: {', '.join(reasons)}")
        fraction = corpus.split["fraction"]
        if corpus.config.split.by == "auto" and fraction and (count * fraction < 1 or _empty_splits(corpus)):
            corpus.split = {**corpus.split, "by": "tail"}
            super().run(corpus)
        for split in _empty_splits(corpus):
            raise ConfigError(
                f"the {split} split would be empty: {count} document{'s' * (count > 1)} in all; split.by = 'tail' "
                "holds out the end of every document, split.validation_fraction sets the share, 0 holds out nothing"
            )

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.left, shard.files["survey"] = result["report"], result["files"]


def _empty_splits(corpus: Corpus) -> list[str]:
    return [split for split in corpus.splits if not any(split in shard.left["splits"] for shard in corpus.shards)]
