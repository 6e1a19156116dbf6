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
from gptjax.corpus.documents import DocumentWriter, read_documents
from gptjax.corpus.engine import Task
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.splits import draws, numbered, split_texts
from gptjax.corpus.stages.verdicts import remaining
from gptjax.formatting import MEGABYTE
from gptjax.paths import local_path
from gptjax.tokenizer import SentencePieceTokenizer, Tokenizer
from gptjax.tokenizer import training as tokenizer_training
from gptjax.tokenizer.training import CHUNK

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus

LEARNED_FROM_TEXT = ("bpe", "unigram")
MADE = (*LEARNED_FROM_TEXT, "byte", "char")

SAMPLE_SCHEMA = pa.schema({"text": pa.large_string()})  # of files of chunks


def sample(task: Task, folder: Path) -> dict:
    """Chunks of running text, each drawn with the same probability, whatever document it stands in.

    inputs: documents, verdicts, rate (the probability). options: split, seed.
    """
    with DocumentWriter(folder / "sample.parquet", SAMPLE_SCHEMA) as writer:
        for some in remaining(task):
            for number, split, text in split_texts(some.texts, some.split_keys, **task.options["split"]):
                if split != "train":
                    continue
                keys = numbered(int(some.ids[number]), -(-len(text) // CHUNK))
                for chunk in np.flatnonzero(draws(keys, task.options["seed"]) < task.inputs["rate"]).tolist():
                    writer.append([{"text": text[chunk * CHUNK : (chunk + 1) * CHUNK]}])
    return {"chunks": writer.documents, "bytes": writer.bytes}


def make_tokenizer(task: Task, folder: Path) -> dict:
    """inputs: samples, or characters (files of survey), or hash (of the tokenizer to reuse). options: of the config."""
    name, size = task.options["name"], task.options["vocab_size"]
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
        made = tokenizer_training.train_characters(counts, size)
    else:
        made = tokenizer.ByteTokenizer() if name == "byte" else tokenizer.load(name)
    made.save(folder)
    return {"kind": made.kind, "vocab_size": made.vocab_size}


class SampleText(CorpusStage):
    """Chunks of the training split to learn a tokenizer from."""

    name, version, function = "sample", 2, staticmethod(sample)

    def is_wanted(self, corpus: Corpus) -> bool:
        return corpus.config.tokenizer.name in LEARNED_FROM_TEXT

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {"split": corpus.split, "seed": corpus.config.seed}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        weighted = sum(shard.bytes_of("train") * shard.source.weight for shard in corpus.shards)
        rate = corpus.config.tokenizer.sample_megabytes * MEGABYTE / max(weighted, 1)
        return corpus.inputs(lambda shard: {"rate": min(rate * shard.source.weight, 1.0)})

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        corpus.samples = [result["files"]["sample.parquet"] for result in results]


class MakeTokenizer(CorpusStage):
    """The tokenizer: one task."""

    name, version, function = "tokenizer", 2, staticmethod(make_tokenizer)

    def check(self, corpus: Corpus) -> None:
        check_tokenizer(corpus.config)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {name: corpus.config.tokenizer[name] for name in ("name", "vocab_size", "split_digits")}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        name = corpus.config.tokenizer.name
        inputs: dict[str, Any] = {}
        if name in LEARNED_FROM_TEXT:
            inputs["libraries"] = versions_of(SentencePieceTokenizer.libraries)
            inputs["samples"] = corpus.samples
        elif name == "char":
            inputs["characters"] = [shard.files["survey"]["characters.json"] for shard in corpus.shards]
        elif name not in MADE:
            inputs["hash"] = tokenizer.load(name).hash
        return [inputs], [0]

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        (corpus.tokenizer_file,) = results[0]["files"].values()
        corpus.tokenizer = tokenizer.load(corpus.work / corpus.tokenizer_file["name"])


def check_tokenizer(config: Any) -> None:
    """Raises ConfigError where a tokenizer that is to be reused, or compared with, cannot be."""
    settings = config.tokenizer
    for path in settings.compare:
        _load("tokenizer.compare", path)
    if settings.name in MADE:
        if settings.name == "byte" and settings.vocab_size not in (0, size := tokenizer.ByteTokenizer().vocab_size):
            raise ConfigError(f"tokenizer.vocab_size = {settings.vocab_size}: the tokenizer 'byte' has {size} tokens")
        return
    if not os.path.exists(local_path(settings.name, "tokenizer.name")):
        raise ConfigError(
            f"tokenizer.name = {settings.name!r}: expected one of {', '.join(MADE)}{suggestion(settings.name, MADE)}, "
            "or a prepared folder or tokenizer file, and there is none of that name"
        )
    made = _load("tokenizer.name", settings.name)
    if settings.vocab_size not in (0, made.vocab_size):
        raise ConfigError(
            f"tokenizer.vocab_size = {settings.vocab_size}: the tokenizer {settings.name!r} has {made.vocab_size} "
            "tokens"
        )
    if config.tokens.bos and not has_own_bos(made):
        raise ConfigError(
            f"tokens.bos = True: the tokenizer {settings.name!r} has no beginning-of-text token of its own "
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
    """Whether the beginning of a text has a token that is not the end's."""
    return made.bos_id is not None and made.bos_id != made.eos_id
