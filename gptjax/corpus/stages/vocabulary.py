"""Draws a sample of the remaining training text, and makes a tokenizer from it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gptjax import tokenizer
from gptjax.config import ConfigError, suggestion
from gptjax.conversation import template_of
from gptjax.corpus.documents import DocumentWriter, read_documents
from gptjax.corpus.engine import Task
from gptjax.corpus.forms import LABELLED, PAIRS, SIDED, TEMPLATED, contents_of, sides_of
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.splits import draws, numbered, split_texts
from gptjax.corpus.stages.verdicts import remaining
from gptjax.display.formatting import MEGABYTE
from gptjax.files.paths import local_path
from gptjax.tokenizer import CONTROL_TOKENS, SentencePieceTokenizer, Tokenizer
from gptjax.tokenizer import training as tokenizer_training
from gptjax.tokenizer.training import CHUNK

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

LEARNED_FROM_TEXT = ("bpe", "unigram")
MADE = (*LEARNED_FROM_TEXT, "byte", "char")

SIDES = {"source": (0, 1), "target": (1, None), "both": (None,)}  # of a document
CONTENTS = "contents"  # of its messages

SAMPLE_SCHEMA = pa.schema({"text": pa.large_string()})  # of files of chunks


def sample(task: Task, folder: Path) -> dict:
    """Draws chunks of running text, each with the same probability in every document.

    inputs: documents, verdicts, rate (the probability). options: split, seed; for pairs and labelled texts also form
    and sides: whether to learn from the sources (or texts), the targets, both, or the
    contents of messages.
    """
    given = task.inputs.get("given", "")
    which, form = task.options.get("sides"), task.options.get("form", "")

    def parts_of(text: str) -> list[str]:
        if which is None:
            return [text]
        return contents_of(text, form) if which == CONTENTS else sides_of(text)[slice(*SIDES[which])]

    with DocumentWriter(folder / "sample.parquet", SAMPLE_SCHEMA) as writer:
        for some in remaining(task):
            for number, split, text in split_texts(some.texts, some.split_keys, **task.options["split"], given=given):
                if split != "train":
                    continue
                pieces = [part[at : at + CHUNK] for part in parts_of(text) for at in range(0, len(part), CHUNK)]
                keys = numbered(int(some.ids[number]), len(pieces))
                for chunk in np.flatnonzero(draws(keys, task.options["seed"]) < task.inputs["rate"]).tolist():
                    writer.append([{"text": pieces[chunk]}])
    return {"chunks": writer.documents, "bytes": writer.bytes}


def make_tokenizer(task: Task, folder: Path) -> dict:
    """Makes the tokenizer.

    inputs: samples, or characters (files of survey), or hash (that of a tokenizer to reuse). options: those of the
    config; prefix: that of its fields for the sources' tokenizer; template, for conversations: its control tokens are
    added to the tokenizer, and are among the tokens of a vocabulary that is learned.
    """
    try:
        made = _made(task)
    except ConfigError as error:
        prefix = task.options.get("prefix", "")
        raise ConfigError(str(error).replace("tokenizer.vocab_size", f"tokenizer.{prefix}vocab_size")) from None
    made.save(folder)
    return {"kind": made.kind, "vocab_size": made.vocab_size}


def _made(task: Task) -> Tokenizer:
    name, size = task.options["name"], task.options["vocab_size"]
    template = template_of(task.options["template"], "template") if "template" in task.options else None
    controls = () if template is None else template.controls
    if size and name in (*LEARNED_FROM_TEXT, "char"):
        size -= len(set(controls) - set(CONTROL_TOKENS))
    made: tokenizer.Tokenizer
    if name in ("bpe", "unigram"):

        def chunks() -> Iterator[str]:
            for entry in task.inputs["samples"]:
                for batch in read_documents(task.path(entry)):
                    yield from batch["text"].to_pylist()

        split_digits = task.options["split_digits"]
        if size:
            made = tokenizer_training.train_sentencepiece(chunks(), name, size, split_digits)
        else:
            made = tokenizer_training.train_fitting(chunks, name, split_digits)
    elif name == "char":
        counts: Counter[str] = Counter()
        for entry in task.inputs["characters"]:
            counts.update(json.loads(task.path(entry).read_text()))
        counts.update("" if template is None else template.text())
        made = tokenizer_training.train_characters(counts, size)
    else:
        made = tokenizer.ByteTokenizer() if name == "byte" else tokenizer.load(name)
    return made.extended(controls)


class SampleText(CorpusStage):
    """Chunks of the training split from which a tokenizer is learned, or only of the sources of pairs for theirs."""

    version, function = 2, staticmethod(sample)

    def __init__(self, of_sources: bool = False):
        self.name, self._of_sources = "source_sample" if of_sources else "sample", of_sources

    def is_wanted(self, corpus: Corpus) -> bool:
        return tokenizer_settings(corpus.config, self._of_sources)["name"] in LEARNED_FROM_TEXT

    def options(self, corpus: Corpus) -> dict[str, Any]:
        options = {"split": corpus.split, "seed": corpus.config.seed}
        if corpus.form == LABELLED:
            options["sides"] = "source"
        elif corpus.form in TEMPLATED:
            options |= {"sides": CONTENTS, **corpus.form_option()}
        elif corpus.form in SIDED:
            apart = corpus.config.tokenizer.source_name
            options["sides"] = "source" if self._of_sources else "target" if apart else "both"
        return options

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        weighted = sum(shard.bytes_of("train") * shard.source.weight for shard in corpus.shards)
        rate = corpus.config.tokenizer.sample_megabytes * MEGABYTE / max(weighted, 1)
        return corpus.inputs(lambda shard: {"rate": min(rate * shard.source.weight, 1.0)})

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        samples = [result["files"]["sample.parquet"] for result in results]
        if self._of_sources:
            corpus.source_samples = samples
        else:
            corpus.samples = samples


class MakeTokenizer(CorpusStage):
    """Makes the tokenizer, or that of the sources of pairs: one task."""

    version, function = 2, staticmethod(make_tokenizer)

    def __init__(self, of_sources: bool = False):
        self.name, self._of_sources = "source_tokenizer" if of_sources else "tokenizer", of_sources

    def check(self, corpus: Corpus) -> None:
        check_tokenizer(corpus.config, self._of_sources)
        if self._of_sources and corpus.form != PAIRS and corpus.config.tokenizer.source_name:
            raise ConfigError(
                f"tokenizer.source_name = {corpus.config.tokenizer.source_name!r}: only pairs have sources of their own"
            )

    def is_wanted(self, corpus: Corpus) -> bool:
        return bool(tokenizer_settings(corpus.config, self._of_sources)["name"])

    def options(self, corpus: Corpus) -> dict[str, Any]:
        prefix = {"prefix": "source_"} if self._of_sources else {}
        return tokenizer_settings(corpus.config, self._of_sources) | prefix | corpus.template_option()

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        name = tokenizer_settings(corpus.config, self._of_sources)["name"]
        inputs: dict[str, Any] = {}
        if name in LEARNED_FROM_TEXT:
            inputs["libraries"] = versions_of(SentencePieceTokenizer.libraries)
            inputs["samples"] = corpus.source_samples if self._of_sources else corpus.samples
        elif name == "char":
            inputs["characters"] = [shard.files["survey"]["characters.json"] for shard in corpus.shards]
        elif name not in MADE:
            inputs["hash"] = tokenizer.load(name).hash
        return [inputs], [0]

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        (entry,) = results[0]["files"].values()
        made = tokenizer.load(corpus.work / entry["name"])
        if self._of_sources:
            corpus.source_tokenizer, corpus.source_tokenizer_file = made, entry
        else:
            corpus.tokenizer, corpus.tokenizer_file = made, entry


def tokenizer_settings(config: Any, of_sources: bool) -> dict[str, Any]:
    """name, vocab_size and split_digits of the tokenizer, or of the sources' tokenizer (name '': there is none)."""
    settings = config.tokenizer
    if of_sources:
        name, vocab_size = settings.source_name, settings.source_vocab_size
    else:
        name, vocab_size = settings.name, settings.vocab_size
    return {"name": name, "vocab_size": vocab_size, "split_digits": settings.split_digits}


def check_tokenizer(config: Any, of_sources: bool = False) -> None:
    """Raises ConfigError if a tokenizer to reuse, or to compare with, cannot be used."""
    prefix = "tokenizer.source_" if of_sources else "tokenizer."
    name, vocab_size, _ = tokenizer_settings(config, of_sources).values()
    for path in config.tokenizer.compare:
        _load("tokenizer.compare", path)
    if of_sources and not name:
        if vocab_size:
            raise ConfigError(f"tokenizer.source_vocab_size = {vocab_size}: needs tokenizer.source_name, such as bpe")
        return
    if name in MADE:
        if name == "byte" and vocab_size not in (0, size := tokenizer.ByteTokenizer().vocab_size):
            raise ConfigError(f"{prefix}vocab_size = {vocab_size}: the tokenizer 'byte' has {size} tokens")
        return
    if not os.path.exists(local_path(name, f"{prefix}name")):
        raise ConfigError(
            f"{prefix}name = {name!r}: expected one of {', '.join(MADE)}{suggestion(name, MADE)}, "
            "or an existing prepared folder or tokenizer file"
        )
    made = _load(f"{prefix}name", name)
    if vocab_size not in (0, made.vocab_size):
        raise ConfigError(f"{prefix}vocab_size = {vocab_size}: the tokenizer {name!r} has {made.vocab_size} tokens")
    if config.tokens.bos and not has_own_bos(made):
        raise ConfigError(
            f"tokens.bos = True: the tokenizer {name!r} has no beginning-of-text token of its own "
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
    """Whether the token for the beginning of a text differs from the one for its end."""
    return made.bos_id is not None and made.bos_id != made.eos_id
