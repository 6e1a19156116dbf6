"""Counts what is left of a shard, by split, and what is dropped, by reason; and characters, if a tokenizer needs them.

It runs before the tokenizer is trained and the text is encoded, so that a corpus that cannot be split is refused early.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptjax.config import ConfigError
from gptjax.corpus.engine import Task
from gptjax.corpus.forms import FEW_LABELS, INNER_SEPARATOR, LABELLED, MOST_LABELS, SEPARATOR, sides_of, source_keys
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.domains import domain_of, write_domains
from gptjax.corpus.stages.histogram import Histogram, reach
from gptjax.corpus.stages.splits import CUT, document_draws, limit_of, split_texts
from gptjax.corpus.stages.verdicts import remaining
from gptjax.display.formatting import MEGABYTE

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus


def survey(task: Task, folder: Path) -> dict:
    """inputs: documents, verdicts, most_held_out (bytes of a document); given, if the source gives the split. options:
    split (as `split_texts` takes it), characters (whether to count them); optional: lowest (how many draws to report),
    form, and sources: whether to write the hashes of all sources or texts, SPLIT.sources.npy.

    Writes the domains of the documents, if they have addresses (domains.py).

    Reports documents and bytes that are left, the same by split (a document whose tail is held out is in both, with a
    part of its bytes in each), languages, licenses and lengths of the documents (histogram.py), and dropped: reason →
    [documents, bytes]; lowest: the lowest draws of the documents, ascending; labels: split → label → documents, for
    labelled texts.
    """
    count = 0
    dropped: dict[str, list[int]] = {}
    documents: Counter[str] = Counter()
    size: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    languages, licenses, lengths, domains = Histogram(), Histogram(), Histogram(), Histogram()
    labels: dict[str, Counter[str]] = {}
    split, form = task.options["split"], task.options.get("form")
    given = task.inputs.get("given", "")
    most_draws = 0 if given else task.options.get("lowest", 0)
    sources: dict[str, list[np.uint64]] = {}
    lowest = np.zeros(0)
    for some in remaining(task):
        count += len(some.texts)
        sizes = [len(text.encode()) for text in some.texts]
        languages.add(some.languages, sizes)
        licenses.add(some.licenses, sizes)
        lengths.add(map(reach, sizes), sizes)
        named = [(domain, size_) for uri, size_ in zip(some.uris, sizes) if (domain := domain_of(uri))]
        domains.add(*(zip(*named) if named else ((), ())))
        cut = sum(sizes)
        most = task.inputs["most_held_out"]
        hashes = source_keys(some.texts, split["by"]) if task.options.get("sources") else ()
        for number, name, text in split_texts(some.texts, some.split_keys, **split, most_bytes=most, given=given):
            length = len(text.encode())
            documents[name] += 1
            size[name] += length
            cut -= length
            if form == LABELLED:
                labels.setdefault(name, Counter())[sides_of(text)[1]] += 1
            if len(hashes):
                sources.setdefault(name, []).append(hashes[number])
            if name == "train" and task.options["characters"]:
                characters.update(text.replace(SEPARATOR, "").replace(INNER_SEPARATOR, "") if form else text)
        if most_draws:
            drawn = document_draws(some.texts, some.split_keys, split["by"], split["seed"])
            lowest = np.sort(np.concatenate([lowest, drawn]))[:most_draws]
        for reason, (number, bytes_) in {**some.dropped, **({CUT: (0, cut)} if cut else {})}.items():
            before = dropped.get(reason, [0, 0])
            dropped[reason] = [before[0] + number, before[1] + bytes_]
    for name, found in sources.items():
        np.save(folder / f"{name}.sources.npy", np.array(found, np.uint64))
    write_domains(folder, domains)
    if task.options["characters"]:
        (folder / "characters.json").write_text(json.dumps(dict(sorted(characters.items()))))
    return {
        "documents": count,
        "bytes": size.total(),
        "splits": {name: {"documents": documents[name], "bytes": size[name]} for name in sorted(documents)},
        "languages": languages.counts,
        "licenses": licenses.counts,
        "lengths": lengths.counts,
        "dropped": dict(sorted(dropped.items())),
        **({"lowest": lowest.tolist()} if task.options.get("lowest") else {}),
        **({"labels": {name: dict(sorted(of.items())) for name, of in sorted(labels.items())}} if labels else {}),
    }


class Survey(CorpusStage):
    """Counts what is left of every shard. With split.by = 'auto', tails are held out if there are too few documents."""

    name, version, function = "survey", 6, staticmethod(survey)

    def check(self, corpus: Corpus) -> None:
        """A single document cannot be divided by documents: this is known before it is read."""
        wanted = len(corpus.splits) > 1 and not any(one.get("given_split", "") for one in corpus.config.sources)
        asked = corpus.split["by"] != "tail" and not corpus.splits_by_tail_if_few
        if wanted and asked and _is_one_document(corpus):
            raise ConfigError(
                f"the {corpus.splits[1]} split would be empty: there is one document; split.by = 'tail' holds out "
                "its end"
            )

    def options(self, corpus: Corpus) -> dict[str, Any]:
        names = (corpus.config.tokenizer.name, corpus.config.tokenizer.source_name)
        counted = (
            2 * _wanted(corpus) if corpus.split["fraction"] is None else 0
        )  # twice, for documents that stay together
        return {
            "split": {**corpus.split, "fraction": corpus.split["fraction"] or 0},
            "characters": "char" in names,
            **({"lowest": counted} if counted else {}),
            **({"sources": True} if corpus.gives_splits else {}),
            **corpus.form_option(),
        }

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return corpus.inputs(corpus.held_out)

    def run(self, corpus: Corpus) -> None:
        if wanted := _wanted(corpus):
            corpus.split = {**corpus.split, "fraction": None}
            super().run(corpus)
            lowest = np.sort(np.concatenate([shard.left["lowest"] for shard in corpus.shards]))[: 2 * wanted]
            settings = corpus.config.split
            limit = limit_of(settings.validation_documents, 0, lowest)
            corpus.split = {**corpus.split, "fraction": limit}
            if settings.test_documents:
                corpus.split["test_below"] = limit_of(settings.test_documents, limit, lowest)
        super().run(corpus)
        count = sum(shard.left["documents"] for shard in corpus.shards)
        if not count:
            reasons = sorted({reason for shard in corpus.shards for reason in shard.left["dropped"]})
            total = sum(shard.count for shard in corpus.shards)
            raise ConfigError(f"no document is left of {total}: {', '.join(reasons)}")
        fraction = corpus.split["fraction"]
        if corpus.splits_by_tail_if_few and fraction and (count * fraction < 1 or _empty_splits(corpus)):
            corpus.split = {**corpus.split, "by": "tail"}
            super().run(corpus)
        if corpus.gives_splits:
            corpus.sections["shared_with_training"] = _shared(corpus)
        for split in _empty_splits(corpus):
            raise ConfigError(
                f"the {split} split would be empty: {count} document{'s' * (count > 1)} in all; split.by = 'tail' "
                "holds out the end of every document, split.validation_fraction sets the share, 0 holds out nothing"
            )
        if corpus.form == LABELLED:
            counts = {split: _label_counts(corpus, split) for split in corpus.splits}
            corpus.labels = sorted(set().union(*counts.values()))
            _check_labels(counts, count, corpus.gives_splits)
            corpus.sections["texts_of_labels"] = {split: dict(sorted(of.items())) for split, of in counts.items()}

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.left, shard.files["survey"] = result["report"], result["files"]


def _is_one_document(corpus: Corpus) -> bool:
    """Whether the sources surely give one document: one plain file that is not cut."""
    if len(corpus.listing.tasks) != 1 or len(pieces := corpus.listing.tasks[0]["pieces"]) != 1:
        return False
    (source,), (piece,) = corpus.config.sources, pieces
    is_plain = piece["uri"].lower().endswith((".txt", ".md")) and not source.options.get("separator")
    return (
        source.kind in ("text", "books")
        and is_plain
        and piece["size"] <= corpus.config.max_document_megabytes * MEGABYTE
    )


def _wanted(corpus: Corpus) -> int:
    """How many documents to hold out, if the config gives their number."""
    return corpus.config.split.validation_documents + corpus.config.split.test_documents


def _shared(corpus: Corpus) -> dict[str, int]:
    """Held-out split → how many of its documents have a source, or a text, that also stands in the training split."""
    found: dict[str, list[np.ndarray]] = {split: [] for split in corpus.splits}
    for shard in corpus.shards:
        for split, some in found.items():
            if entry := shard.files["survey"].get(f"{split}.sources.npy"):
                some.append(np.load(corpus.work / entry["name"]))
    train, *held_out = (np.concatenate([*some, np.zeros(0, np.uint64)]) for some in found.values())
    return {split: int(np.isin(keys, train).sum()) for split, keys in zip(corpus.splits[1:], held_out)}


def _label_counts(corpus: Corpus, split: str) -> Counter[str]:
    """label → texts of a split that have it."""
    of_shards = (Counter(shard.left.get("labels", {}).get(split, {})) for shard in corpus.shards)
    return sum(of_shards, Counter())


def _check_labels(counts: dict[str, Counter[str]], texts: int, are_given: bool) -> None:
    """Raises ConfigError unless the labels of these texts can be learned.

    Args:
      counts: split → label → texts. are_given: whether the splits are given; a drawn one may lack a rare label.
    """
    labels = set().union(*counts.values())
    column = (
        "is it the column of the label? --label_field and --text_field (a source's label and text) name the columns"
    )
    if len(labels) == 1:
        raise ConfigError(f"all {texts:,} texts have the label {labels.pop()!r}: a classifier needs at least 2 labels")
    if len(labels) > MOST_LABELS:
        raise ConfigError(f"{len(labels):,} different labels: at most {MOST_LABELS:,}; {column}")
    if len(labels) > max(FEW_LABELS, texts / 2):
        raise ConfigError(f"{len(labels):,} different labels of {texts:,} texts: at most half as many; {column}")
    for split in counts if are_given else ():
        if unknown := sorted(set(counts[split]) - set(counts["train"])):
            some = ", ".join(f"{label!r} ({counts[split][label]:,})" for label in unknown[:5])
            raise ConfigError(
                f"the {split} split has labels that no text of the training split has: {some}; --labels "
                "(a source's labels) names the labels to keep"
            )


def _empty_splits(corpus: Corpus) -> list[str]:
    return [split for split in corpus.splits if not any(split in shard.left["splits"] for shard in corpus.shards)]
