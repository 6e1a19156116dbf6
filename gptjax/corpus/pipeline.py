"""From sources to a prepared folder, stage by stage; each is done shard by shard, and what is done is not done again.

 evaluations evaluation sets → what they would be known by (one task, where there are any)
 extract     pieces of sources → documents, in shards
 clean       documents → the same, mended and masked, and figures of them (sources for which something is asked)
 select      figures and rules → verdicts on documents that a rule objects to
 sketch      documents → the hashes by which copies are found
 copies      all hashes → verdicts on documents that have copies (one task, in bounded memory)
 passages    documents → passages that stand elsewhere, too: hashed, joined, marked (where they are asked for)
 contaminate documents → verdicts on those that hold evaluation text; overlap: which evaluation items those are
 survey      documents and verdicts → what is left, in which split
 sample      the training split's documents → chunks, drawn at random
 tokenizer   chunks → tokenizer (one task)
 encode      documents → token ids
 assemble    token ids → the shards that training reads, and the manifest

Between stages travel files in FOLDER/work and, here, the numbers in their reports. A verdict says of a document, by its
row in its shard, why it is out; no text is written anew to leave it out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gptjax import tokenizer
from gptjax.config import ConfigError, suggestion
from gptjax.corpus.cleaning import config as cleaning
from gptjax.corpus.document_shards import DocumentShard, inputs_of
from gptjax.corpus.engine import Stage, TaskExecutor, run_stage
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.manifest import WORK, clear, make_manifest, write_manifest
from gptjax.corpus.report import draw_samples, funnel, write_card
from gptjax.corpus.searches import Searches
from gptjax.corpus.sources.listing import FailureLimit, Listing
from gptjax.corpus.stages.clean import clean
from gptjax.corpus.stages.encode import encode
from gptjax.corpus.stages.extract import extract
from gptjax.corpus.stages.select import select
from gptjax.corpus.stages.splits import most_held_out
from gptjax.corpus.stages.survey import survey
from gptjax.corpus.stages.vocabulary import make_tokenizer, sample
from gptjax.corpus.tokens.assemble import Encoded, assemble
from gptjax.formatting import counted
from gptjax.paths import local_path
from gptjax.tokenizer import SentencePieceTokenizer, Tokenizer

MEGABYTE = 1_000_000
LEARNED_FROM_TEXT = ("bpe", "unigram")
MADE = (*LEARNED_FROM_TEXT, "byte", "char")

# (name of a stage, bytes of each task) → what is told of every task that is done: its number and its result.
Watch = Callable[[str, Sequence[int]], AbstractContextManager[Callable[[int, dict], None]]]


class Pipeline:
    """The stages of one corpus.

    Args:
      config: checked (gptjax/corpus/config.py).
      listing: what its sources have.
      folder: to prepare.
    """

    def __init__(self, config: Any, listing: Listing, folder: Path, executor: TaskExecutor, watch: Watch):
        self.config, self.listing, self.folder = config, listing, folder
        self.work = folder / WORK
        self.stages: dict[str, dict[str, Any]] = {}  # the manifest's section: name → version, options, libraries
        self._executor, self._watch = executor, watch
        fraction, by = config.split.validation_fraction, config.split.by
        self._split = {"fraction": fraction, "by": "document" if by == "auto" else by, "seed": config.seed}
        self._splits = ("train", "validation") if fraction else ("train",)
        self._searches = Searches(config, self._run)
        self._check_tokenizer()

    def prepare(self, options: dict) -> dict:
        """Does whatever is not done yet and returns the manifest, which is written last.

        Args:
          options: for the manifest: what a finished folder is recognised by.

        Raises:
          ConfigError: the corpus cannot give what the config asks for.
          RunError: tasks failed, or too much of a source is unreadable.
          OSError: the disk is full.
        """
        index = self._searches.index()
        shards, skipped = self.extract()
        self.clean(shards)
        copies = self._searches.copies(shards)
        passages = self._searches.passages(shards)
        contamination = self._searches.contamination(shards, index)
        self.survey(shards)
        tokens, tokenizer_file = self.make_tokenizer(shards)
        encoded = self.encode(shards, tokens, tokenizer_file)

        clear(self.folder, keep=tokens.file_name)
        tokens.save(self.folder)
        manifest = make_manifest(
            self.folder,
            options=options,
            tokenizer=tokens,
            bos=self.config.tokens.bos,
            change=next((shard.encoded["change"] for shard in shards if shard.encoded["change"]), None),
            splits={split: self.assemble(shards, encoded, split, tokens) for split in self._splits},
            skipped=funnel.total(skipped),
            sources=funnel.by_source(self.config, self.listing, shards, skipped),
            copies=copies,
            passages=passages,
            contamination=contamination,
            parts=[{"source": shard.source.name, **shard.documents} for shard in shards],
            stages=self.stages,
        )
        write_card(self.folder, manifest, draw_samples(shards, self.work, self.config.seed))
        write_manifest(self.folder, manifest)
        return manifest

    def extract(self) -> tuple[list[DocumentShard], dict[str, dict[str, int]]]:
        """The documents of all sources in shards; and by source, what was skipped: reason → count."""
        shard_bytes = self.config.shard_megabytes * MEGABYTE
        most_bytes = round(self.config.max_document_megabytes * MEGABYTE)
        stage = Stage(
            "extract", extract, version=3, options={"shard_bytes": shard_bytes, "most_document_bytes": most_bytes}
        )
        limit = FailureLimit(self.listing, self.config.max_failure_share)
        results = self._run(stage, self.listing.tasks, self.listing.sizes, limit.heed)
        limit.check()
        shards: list[DocumentShard] = []
        for source, result in zip(self.listing.sources, results):
            for name, held in result["report"]["files"].items():
                entry = result["files"][name]
                shards.append(DocumentShard(len(shards), source, entry, held["documents"], held["bytes"]))
        skipped = funnel.skipped(self.listing, [result["report"] for result in results])
        if not shards:
            raise ConfigError(
                f"no document in {counted(self.listing.pieces.total(), 'file')} ({funnel.told(funnel.total(skipped))})"
            )
        return shards, skipped

    def clean(self, shards: list[DocumentShard]) -> None:
        """Puts cleaned documents in the place of those of sources that ask for it, and gives verdicts by their rules.

        What changes a text is a stage before that which judges it, so that another threshold touches no text.
        """
        asked = self.config.cleaning
        shards = [shard for shard in shards if cleaning.is_asked(asked, shard.source)]
        if not shards:
            return
        stage = Stage("clean", clean, version=2, options=cleaning.options(asked))
        measured = inputs_of(
            shards,
            lambda shard: {
                **cleaning.treatment(shard.source),
                "libraries": versions_of(cleaning.libraries(asked, shard.source)),
            },
        )
        figures = self._run(stage, *measured)
        for shard, result in zip(shards, figures):
            shard.documents, shard.cleaned = result["files"]["documents.parquet"], result["report"]
        statistics = {shard.number: result["files"]["statistics.parquet"] for shard, result in zip(shards, figures)}
        inputs, sizes = inputs_of(
            shards, lambda shard: {"statistics": statistics[shard.number], **cleaning.verdict(asked, shard.source)}
        )
        for shard, result in zip(shards, self._run(Stage("select", select), inputs, sizes)):
            shard.verdicts.append(result["files"]["verdicts.parquet"])
            shard.selected = result["report"]

    def survey(self, shards: list[DocumentShard]) -> None:
        """Tells every shard what is left of it; split by tails if that is left to us and whole documents are too few.

        Raises:
          ConfigError: nothing is left, or a split would be empty.
        """
        self._survey(shards)
        count = sum(shard.left["documents"] for shard in shards)
        if not count:
            reasons = sorted({reason for shard in shards for reason in shard.left["dropped"]})
            raise ConfigError(f"no document is left of {sum(shard.count for shard in shards)}: {', '.join(reasons)}")
        fraction = self._split["fraction"]
        if self.config.split.by == "auto" and fraction and (count * fraction < 1 or self._empty_splits(shards)):
            self._split = {**self._split, "by": "tail"}
            self._survey(shards)
        for split in self._empty_splits(shards):
            raise ConfigError(
                f"the {split} split would be empty: {count} document{'s' * (count > 1)} in all; split.by = 'tail' "
                "holds out the end of every document, split.validation_fraction sets the share, 0 holds out nothing"
            )

    def _survey(self, shards: list[DocumentShard]) -> None:
        options = {"split": self._split, "characters": self.config.tokenizer.name == "char"}
        stage = Stage("survey", survey, version=4, options=options)
        for shard, result in zip(shards, self._run(stage, *inputs_of(shards, self._held_out(shards)))):
            shard.left = {**result["report"], "files": result["files"]}

    def _empty_splits(self, shards: list[DocumentShard]) -> list[str]:
        return [split for split in self._splits if not any(split in shard.left["splits"] for shard in shards)]

    def make_tokenizer(self, shards: list[DocumentShard]) -> tuple[Tokenizer, dict]:
        """The tokenizer and the entry of its file."""
        asked = self.config.tokenizer
        inputs: dict[str, Any] = {}
        if asked.name in LEARNED_FROM_TEXT:
            stage = Stage("sample", sample, version=2, options={"split": self._split, "seed": self.config.seed})
            weighted = sum(_bytes(shard, "train") * shard.source.weight for shard in shards)
            rate = asked.sample_megabytes * MEGABYTE / max(weighted, 1)
            drawn = self._run(stage, *inputs_of(shards, lambda shard: {"rate": min(rate * shard.source.weight, 1.0)}))
            inputs["libraries"] = versions_of(SentencePieceTokenizer.libraries)
            inputs["samples"] = [result["files"]["sample.parquet"] for result in drawn]
        elif asked.name == "char":
            inputs["characters"] = [shard.left["files"]["characters.json"] for shard in shards]
        elif asked.name not in MADE:
            inputs["hash"] = tokenizer.load(asked.name).hash
        options = {name: asked[name] for name in ("name", "vocab_size", "split_digits")}
        (made,) = self._run(Stage("tokenizer", make_tokenizer, version=2, options=options), [inputs], [0])
        (entry,) = made["files"].values()
        return tokenizer.load(self.work / entry["name"]), entry

    def encode(self, shards: list[DocumentShard], tokens: Tokenizer, tokenizer_file: dict) -> list[dict]:
        """The files of each shard's tokens."""
        others = {path: tokenizer.load(path) for path in self.config.tokenizer.compare}
        compare = {path: other.hash for path, other in others.items()}
        made_by = versions_of(name for each in (tokens, *others.values()) for name in each.libraries)
        options = {"split": self._split, "bos": self.config.tokens.bos, "compare": compare}
        of_all, held_out = {"tokenizer": tokenizer_file, "libraries": made_by}, self._held_out(shards)
        inputs, sizes = inputs_of(shards, lambda shard: {**of_all, **held_out(shard)})
        results = self._run(Stage("encode", encode, version=3, options=options), inputs, sizes)
        for shard, result in zip(shards, results):
            shard.encoded = result["report"]
        return [result["files"] for result in results]

    def assemble(self, shards: list[DocumentShard], encoded: list[dict], split: str, tokens: Tokenizer) -> dict:
        """Writes a split and returns its section of the manifest."""
        parts = [
            Encoded(
                part=shard.number,
                source=shard.source.name,
                weight=shard.source.weight,
                tokens=self.work / files[f"{split}.tokens"]["name"],
                index=self.work / files[f"{split}.index.npy"]["name"],
            )
            for shard, files in zip(shards, encoded)
            if f"{split}.tokens" in files
        ]
        shard_tokens = self.config.tokens.shard_tokens
        section = assemble(parts, self.folder, split, tokens.vocab_size, shard_tokens, self.config.seed)
        lost = ("unknown_tokens", "changed_documents")
        reports = [shard.encoded["splits"].get(split, {}) for shard in shards]
        return {**section, **{name: sum(report.get(name, 0) for report in reports) for name in lost}}

    def _held_out(self, shards: list[DocumentShard]) -> Callable[[DocumentShard], dict]:
        """What stages that split must know of a shard beside the documents: how much of one may be held out."""
        size: Counter[str] = Counter()
        for shard in shards:
            size[shard.source.name] += shard.size
        share = self.config.split.largest_share
        fraction = self.config.split.validation_fraction
        most = {name: most_held_out(of, fraction, share) if share < 1 else None for name, of in size.items()}
        return lambda shard: {"most_held_out": most[shard.source.name]}

    def _run(
        self,
        stage: Stage,
        inputs: Sequence[Any],
        sizes: Sequence[int],
        heed: Callable[[int, dict], None] = lambda number, report: None,
    ) -> list[dict]:
        made_by = {name: number for each in inputs for name, number in each.get("libraries", {}).items()}
        self.stages[stage.name] = {"version": stage.version, "options": stage.options, "libraries": made_by}
        with self._watch(stage.name, sizes) as progress:

            def tell(number: int, result: dict) -> None:
                progress(number, result)
                heed(number, result["report"])

            return run_stage(stage, inputs, self.work, self._executor, tell)

    def _check_tokenizer(self) -> None:
        """Raises ConfigError where a tokenizer that is to be reused cannot be, before anything is read."""
        asked = self.config.tokenizer
        for path in asked.compare:
            _load("tokenizer.compare", path)
        if asked.name in MADE:
            if asked.name == "byte" and asked.vocab_size not in (0, size := tokenizer.ByteTokenizer().vocab_size):
                raise ConfigError(f"tokenizer.vocab_size = {asked.vocab_size}: the tokenizer 'byte' has {size} tokens")
            return
        if not os.path.exists(local_path(asked.name, "tokenizer.name")):
            raise ConfigError(
                f"tokenizer.name = {asked.name!r}: expected one of {', '.join(MADE)}{suggestion(asked.name, MADE)}, "
                "or a prepared folder or tokenizer file, and there is none of that name"
            )
        made = _load("tokenizer.name", asked.name)
        if asked.vocab_size not in (0, made.vocab_size):
            raise ConfigError(
                f"tokenizer.vocab_size = {asked.vocab_size}: the tokenizer {asked.name!r} has {made.vocab_size} tokens"
            )
        if self.config.tokens.bos and not has_own_bos(made):
            raise ConfigError(
                f"tokens.bos = True: the tokenizer {asked.name!r} has no beginning-of-text token of its own "
                f"(bos_id {made.bos_id}, eos_id {made.eos_id})"
            )


def _load(field: str, path: str) -> Tokenizer:
    """The tokenizer that a field of the config names."""
    try:
        return tokenizer.load(path)
    except ConfigError as error:
        raise ConfigError(f"{field} = {path!r}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{field} = {path!r}: cannot be read ({error.strerror})") from None


def has_own_bos(made: Tokenizer) -> bool:
    return made.bos_id is not None and made.bos_id != made.eos_id


def _bytes(shard: DocumentShard, split: str) -> int:
    return shard.left["splits"].get(split, {"bytes": 0})["bytes"]
