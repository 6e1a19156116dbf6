"""What is known about a corpus while it is prepared: its shards of documents, and the results of the stages so far."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptjax.conversation import Template, load_template
from gptjax.corpus.forms import TEMPLATED, TEXT
from gptjax.corpus.sources.listing import FailureLimit, Listing
from gptjax.corpus.stages.histogram import reach
from gptjax.corpus.stages.splits import most_held_out
from gptjax.corpus.stages.verdicts import SET_ASIDE
from gptjax.tokenizer import Tokenizer


@dataclass
class DocumentShard:
    """Documents of one source in one file, and what is known about them so far.

    Attributes:
      number: its place among all shards, to which the origins of documents refer.
      source: its config.
      documents: the file's entry, with count documents and size bytes of text.
      verdicts: entries of files (stages/verdicts.py); spans: passages to leave out, if any (stages/passages.py).
      cleaned, selected, left, encoded: the reports of these stages; the first two are missing without cleaning.
      files: the entries of the files of the stages survey and encode, by the stage's name.
    """

    number: int
    source: Any
    documents: dict
    count: int
    size: int
    verdicts: list[dict] = field(default_factory=list)
    spans: dict = field(default_factory=dict)
    cleaned: dict = field(default_factory=dict)
    selected: dict = field(default_factory=dict)
    left: dict = field(default_factory=dict)
    encoded: dict = field(default_factory=dict)
    files: dict[str, dict] = field(default_factory=dict)

    def inputs(self, **more: Any) -> dict[str, Any]:
        """The inputs of a stage that reads the documents that are left."""
        spans = {"spans": self.spans} if self.spans else {}
        given = {"given": self.given_split} if self.given_split else {}
        return {"documents": self.documents, "verdicts": self.verdicts, **spans, **given, **more}

    @property
    def given_split(self) -> str:
        """The split that the source gives for all of its documents; '': it is drawn."""
        return self.source.get("given_split", "")

    def bytes_of(self, split: str) -> int:
        """The bytes of text left in a split."""
        return self.left["splits"].get(split, {"bytes": 0})["bytes"]


def _drop(left: dict, language: str, license: str, size: int, reason: str) -> None:
    """Takes a document out of the report of survey."""
    left["documents"] -= 1
    left["bytes"] -= size
    before = left["dropped"].get(reason, [0, 0])
    left["dropped"][reason] = [before[0] + 1, before[1] + size]
    for name, key in (("languages", language), ("licenses", license), ("lengths", str(reach(size)))):
        documents, bytes_ = left[name].pop(key, [1, size])
        if documents > 1:
            left[name][key] = [documents - 1, bytes_ - size]


@dataclass
class Corpus:
    """A corpus that is being prepared: every stage reads it and adds its results.

    Attributes:
      config: checked (config.py). listing: the pieces of its sources. work: the folder of the stages' folders.
      run: runs a stage (stages/base.py) on (inputs, bytes) of its tasks, and returns their results.
      form: that of the documents (forms.py): text | pairs | labelled | conversations. labels: names of the labels of
        labelled texts.
      split: the arguments for splitting (stages/splits.py). splits: the names of the splits.
      shards: the shards, in the order of the sources; skipped: source → reason → count of what reading left out.
      earlier: shards and clusters of finished corpora to compare with.
      evaluations: the evaluation sets and their files; index: the entry of the index of all of them.
      sections: for the manifest: the results of the searches, name → counts, None without the search; and others that a
        corpus may have: own_stages, skipped_at, texts_of_labels, shared_with_training, set_aside.
      samples: entries of the files from which a tokenizer is learned.
      tokenizer: set when its stage is done; tokenizer_file: the entry of its file. source_samples, source_tokenizer
        (None: they share one) and its file: the same for the sources of pairs that have their own tokenizer.
    """

    config: Any
    listing: Listing
    work: Path
    run: Callable[..., list[dict]]
    form: str
    split: dict[str, Any]
    splits: tuple[str, ...]
    shards: list[DocumentShard] = field(default_factory=list)
    skipped: dict[str, Counter[str]] = field(default_factory=dict)
    earlier: dict[str, list] = field(default_factory=dict)
    evaluations: list[dict] = field(default_factory=list)
    index: dict | None = None
    sections: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(("copies", "passages", "contamination")))
    samples: list[dict] = field(default_factory=list)
    tokenizer: Tokenizer = field(init=False)
    tokenizer_file: dict = field(default_factory=dict)
    source_samples: list[dict] = field(default_factory=list)
    source_tokenizer: Tokenizer | None = None
    source_tokenizer_file: dict | None = None
    labels: list[str] = field(default_factory=list)

    @functools.cached_property
    def failures(self) -> FailureLimit:
        """The share of every source's documents that has failed, and may."""
        return FailureLimit(self.listing, self.config.max_failure_share, self.config.least_failures)

    def count_set_aside(self, inputs: dict, report: dict) -> None:
        """Counts documents that a task has set aside since its process ended there.

        Raises:
          RunError: they are too many of their source.
        """
        for shard in self._shards_of(inputs) if report.get("set_aside") else ():
            for *_, reason in report["set_aside"]:
                self.failures.add(shard.source.name, reason)

    def note_set_aside(self, stage: str, inputs: dict, result: dict) -> None:
        """Names the documents that a task has set aside; a verdict drops them from all later stages."""
        found = result["report"].get("set_aside")
        if not found:
            return
        noted = self.sections.setdefault("set_aside", [])
        if "source" in inputs:  # those of extract are counted by their reader
            noted += [{"stage": stage, "source": inputs["source"]["name"], **one} for one in found]
        for shard in self._shards_of(inputs):
            shard.verdicts.append(result["files"][SET_ASIDE])
            for _, uri, language, license, size, reason in found:
                noted.append({"stage": stage, "source": shard.source.name, "document": uri, "reason": reason})
                if shard.left:
                    _drop(shard.left, language, license, size, reason)

    def _shards_of(self, inputs: dict) -> list[DocumentShard]:
        """The shard whose documents are a task's input."""
        return [shard for shard in self.shards if shard.documents == inputs.get("documents")]

    @property
    def splits_by_tail_if_few(self) -> bool:
        """Whether the ends of documents may be held out if there are few documents."""
        settings = self.config.split
        asked = settings.validation_documents or settings.test_documents or settings.test_fraction
        return settings.by == "auto" and self.form == TEXT and not asked

    @property
    def gives_splits(self) -> bool:
        """Whether a source says in which split its documents are, so that splits may share some."""
        return any(shard.given_split for shard in self.shards)

    def form_option(self) -> dict[str, str]:
        """The form for a stage's options, if it is not running text."""
        return {} if self.form == TEXT else {"form": self.form}

    @functools.cached_property
    def template(self) -> Template | None:
        """The chat template of conversations; None for other forms."""
        return load_template(self.config.template) if self.form in TEMPLATED else None

    def template_option(self) -> dict[str, Any]:
        """The template for a stage's options, and for the manifest, if there is one."""
        return {} if self.template is None else {"template": self.template.to_json()}

    def inputs(
        self, more: Callable[[DocumentShard], dict] = lambda shard: {}, shards: list[DocumentShard] | None = None
    ) -> tuple[list[dict], list[int]]:
        """(inputs, bytes) of one task for each shard, or each of `shards`, over the documents that are left.

        more: further inputs of a shard's task.
        """
        shards = self.shards if shards is None else shards
        sizes = [shard.left.get("bytes", shard.size) for shard in shards]
        return [shard.inputs(**more(shard)) for shard in shards], sizes

    def held_out(self, shard: DocumentShard) -> dict[str, int | None]:
        """The input that stages which split need besides documents: how many bytes of a document may be held out."""
        share, fraction = self.config.split.largest_share, self.split["fraction"] or 0
        sizes: Counter[str] = Counter()
        for each in self.shards:
            sizes[each.source.name] += each.size
        size = sizes[shard.source.name]
        return {"most_held_out": most_held_out(size, fraction, share) if share < 1 else None}
