"""From sources to a prepared folder: a list of stages, each applied shard by shard; finished work is not repeated.

 evaluations evaluation sets → the index of their text (one task, if there are any)
 extract     pieces of sources → documents, in shards
 clean       documents → the same, repaired and masked, and figures of them (for sources with cleaning)
 score       documents → the numbers that the config's own functions give them (if there are any)
 select      figures and rules → verdicts on documents that a rule drops
 sketch      documents → the hashes by which copies are found
 copies      all hashes → verdicts on documents that have copies (one task, in bounded memory)
 passages    documents → passages that also occur elsewhere: hashed, joined, marked (if the config asks for it)
 contaminate documents → verdicts on those that contain evaluation text; overlap: which items the corpus contains
 columns     all of this → documents-00000.parquet … (if the config asks for it)
 survey      documents and verdicts → which documents are left, and in which split
 sample      the training split's documents → chunks, drawn at random
 tokenizer   chunks → tokenizer (one task); source_sample, source_tokenizer: the same for the sources of pairs, if they
             have their own tokenizer
 encode      documents → token ids

Finally, the token ids of all shards become the files that training reads, and the manifest is written. A config can add
the user's own stages (`stages`), each after the stage that it names.

Stages pass data on as files in FOLDER/work, and the numbers in their reports in `Corpus`. A verdict says why a
document, given by its row in its shard, is dropped; no text is rewritten to drop it.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.config.named_functions import code_hash
from gptjax.corpus.engine import Stage, TaskExecutor, run_stage
from gptjax.corpus.forms import LABELLED, PAIRS, form_of
from gptjax.corpus.manifest import WORK, clear, make_manifest, write_manifest
from gptjax.corpus.report import draw_samples, funnel, write_card
from gptjax.corpus.sources.listing import Listing
from gptjax.corpus.stages.base import CorpusStage, importable_name
from gptjax.corpus.stages.clean import Clean
from gptjax.corpus.stages.columns import JoinColumns
from gptjax.corpus.stages.contaminate import FindEvaluationText, FindItems, IndexEvaluations
from gptjax.corpus.stages.copies import FindCopies, SketchDocuments
from gptjax.corpus.stages.domains import FILE as DOMAINS
from gptjax.corpus.stages.domains import publish as publish_domains
from gptjax.corpus.stages.encode import Encode
from gptjax.corpus.stages.extract import Extract
from gptjax.corpus.stages.own import OwnStage
from gptjax.corpus.stages.passages import HashPassages, JoinPassages, MarkPassages
from gptjax.corpus.stages.score import FILE as SCORES
from gptjax.corpus.stages.score import Score, weights_of
from gptjax.corpus.stages.select import Select
from gptjax.corpus.stages.splits import split_of
from gptjax.corpus.stages.survey import Survey
from gptjax.corpus.stages.verdicts import with_set_aside
from gptjax.corpus.stages.vocabulary import MakeTokenizer, SampleText
from gptjax.corpus.state import Corpus, DocumentShard
from gptjax.corpus.tokens.assemble import Encoded, assemble, assemble_pairs
from gptjax.data.prepared import SOURCE_PREFIX

STAGES: tuple[CorpusStage, ...] = (
    *(IndexEvaluations(), Extract(), Clean(), Score(), Select()),
    *(SketchDocuments(), FindCopies()),
    *(HashPassages(), JoinPassages(), MarkPassages()),
    *(FindEvaluationText(), FindItems(), JoinColumns()),
    *(Survey(), SampleText(), MakeTokenizer()),
    *(SampleText(of_sources=True), MakeTokenizer(of_sources=True), Encode()),
)

# (name of a stage, bytes of each task) → a function that is called with number and result of every finished task.
Watch = Callable[[str, Sequence[int]], AbstractContextManager[Callable[[int, dict], None]]]


class Pipeline:
    """The stages of one corpus.

    Args:
      config: checked (gptjax/corpus/config.py).
      listing: the pieces of its sources.
      folder: the folder to prepare.

    Raises:
      ConfigError: a stage refuses the config, before anything is read.
    """

    def __init__(self, config: Any, listing: Listing, folder: Path, executor: TaskExecutor, watch: Watch):
        self.config, self.folder = config, folder
        self.own = [given for given in config.stages if isinstance(given, CorpusStage)]
        self.stages = with_own(STAGES, config.stages)
        self.records: dict[str, dict[str, Any]] = {}  # the manifest's section: name → version, options, libraries
        self._executor, self._watch = executor, watch
        form = form_of(config.sources)
        self.corpus = Corpus(
            config,
            listing,
            folder / WORK,
            self._run,
            form,
            *split_of(config.split, config.seed, form, {one.get("given_split", "") for one in config.sources} - {""}),
        )
        for stage in self.stages:
            stage.check(self.corpus)

    def prepare(self, options: dict) -> dict:
        """Runs everything that is not done yet and returns the manifest, which is written last.

        Args:
          options: stored in the manifest, to recognize a finished folder.

        Raises:
          ConfigError: the corpus cannot give what the config asks for.
          RunError: tasks failed, or too much of a source is unreadable.
          OSError: the disk is full.
        """
        corpus = self.corpus
        for stage in self.stages:
            if stage.is_wanted(corpus):
                stage.run(corpus)

        clear(self.folder, keep=[corpus.tokenizer.file_name])
        corpus.tokenizer.save(self.folder)
        if corpus.source_tokenizer is not None:
            corpus.source_tokenizer.save(self.folder, SOURCE_PREFIX)
        skipped = {name: dict(sorted(reasons.items())) for name, reasons in corpus.skipped.items()}
        manifest = make_manifest(
            self.folder,
            options=options,
            form=corpus.form,
            tokenizer=corpus.tokenizer,
            source_tokenizer=corpus.source_tokenizer,
            bos=self.config.tokens.bos,
            change=next((shard.encoded["change"] for shard in corpus.shards if shard.encoded["change"]), None),
            splits={split: self._assemble(split) for split in corpus.splits},
            skipped=funnel.total(skipped),
            **self._domains(),
            sources=funnel.by_source(self.config, corpus.listing, corpus.shards, skipped),
            **corpus.sections,
            **({"labels": corpus.labels} if corpus.form == LABELLED else {}),
            **corpus.template_option(),
            parts=[{"source": shard.source.name, **shard.documents} for shard in corpus.shards],
            stages=self.records,
        )
        self._publish_documents()
        write_card(self.folder, manifest, draw_samples(corpus.shards, corpus.work, self.config.seed, corpus.form))
        write_manifest(self.folder, manifest)
        return manifest

    def _domains(self) -> dict[str, Any]:
        """The manifest's section on domains; their file is written."""
        entries = [entry for shard in self.corpus.shards if (entry := shard.files["survey"].get(DOMAINS))]
        found = publish_domains(self.folder, [self.corpus.work / entry["name"] for entry in entries])
        return {"domains": found} if found else {}

    def _publish_documents(self) -> None:
        """Puts the files of the stage columns into the folder, without another copy if its disk has links."""
        for shard in self.corpus.shards:
            for entry in shard.files.get("columns", {}).values():
                place = self.folder / f"documents-{shard.number:05d}.parquet"
                place.unlink(missing_ok=True)
                try:
                    os.link(self.corpus.work / entry["name"], place)
                except OSError:
                    shutil.copyfile(self.corpus.work / entry["name"], place)

    def _assemble(self, split: str) -> dict:
        """Writes a split and returns its section of the manifest."""
        corpus = self.corpus
        encoded = [
            Encoded(
                part=shard.number,
                source=shard.source.name,
                weight=shard.source.weight,
                weights=self._weights(shard),
                tokens=corpus.work / shard.files["encode"][f"{split}.tokens"]["name"],
                index=corpus.work / shard.files["encode"][f"{split}.index.npy"]["name"],
                pairs=_place(corpus, shard, f"{split}.pairs.jsonl"),
                labels=_place(corpus, shard, f"{split}.labels.npy"),
                supervised=_place(corpus, shard, f"{split}.supervised"),
            )
            for shard in corpus.shards
            if f"{split}.tokens" in shard.files["encode"]
        ]
        shard_tokens = self.config.tokens.shard_tokens
        vocab_size = max(each.vocab_size for each in (corpus.tokenizer, corpus.source_tokenizer or corpus.tokenizer))
        section = assemble(encoded, self.folder, split, vocab_size, shard_tokens, self.config.seed)
        if corpus.form == PAIRS and split != "train":
            section["pairs"] = assemble_pairs(encoded, self.folder, split, self.config.seed)
        lost = ("unknown_tokens", "changed_documents")
        reports = [shard.encoded["splits"].get(split, {}) for shard in corpus.shards]
        return {**section, **{name: sum(report.get(name, 0) for report in reports) for name in lost}}

    def _weights(self, shard: DocumentShard) -> np.ndarray | None:
        """float64 [documents of the shard]: what the scores make of the source's weight; None without such scores."""
        names = [one.name for one in self.config.scores if one.weight]
        entry = shard.files.get("score", {}).get(SCORES)
        return weights_of(self.corpus.work / entry["name"], names) if names and entry else None

    def _run(
        self,
        stage: CorpusStage,
        inputs: Sequence[Any],
        sizes: Sequence[int],
        after_task: Callable[[int, dict], None] = lambda number, report: None,
    ) -> list[dict]:
        """The results of a stage's tasks; `after_task` is called with the number and report of each as it ends."""
        options = stage.options(self.corpus)
        if stage in self.own:  # it is repeated when its code changes, even with the same version
            inputs = [{**each, "code": code_hash(importable_name("stages", stage.function))} for each in inputs]
        made_by = {name: number for each in inputs for name, number in each.get("libraries", {}).items()}
        self.records[stage.name] = {"version": stage.version, "options": options, "libraries": made_by}
        with self._watch(stage.name, sizes) as progress:

            def tell(number: int, result: dict) -> None:
                progress(number, result)
                self.corpus.count_set_aside(inputs[number], result["report"])
                after_task(number, result["report"])

            work = Stage(stage.name, functools.partial(with_set_aside, stage.function), stage.version, options)
            seconds = self.config.max_document_seconds
            results = run_stage(work, inputs, self.corpus.work, self._executor, tell, seconds)
        for given, result in zip(inputs, results):
            self.corpus.note_set_aside(stage.name, given, result)
        return results


def _place(corpus: Corpus, shard: DocumentShard, name: str) -> Path | None:
    """The place of a file of the stage encode; None if the shard has no such file."""
    files = shard.files["encode"]
    return corpus.work / files[name]["name"] if name in files else None


def with_own(stages: Sequence[CorpusStage], own: Sequence[Any]) -> list[CorpusStage]:
    """The list with the stages of a config's `stages`, each after the stage that it names, in the given order."""
    listed = list(stages)
    last: dict[str, int] = {}
    for given in own:
        stage = given if isinstance(given, CorpusStage) else OwnStage(given)
        names = [each.name for each in listed]
        place = names.index(stage.after) + 1 + last.get(stage.after, 0)
        listed.insert(place, stage)
        last[stage.after] = last.get(stage.after, 0) + 1
    return listed
