"""From what is left of the training text, a seeded sample; from the sample, a tokenizer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from gptjax import tokenizer
from gptjax.corpus.documents import DocumentWriter, read_documents
from gptjax.corpus.engine import Task
from gptjax.corpus.stages.splits import draws, numbered, split_texts
from gptjax.corpus.stages.verdicts import remaining
from gptjax.tokenizer import training as tokenizer_training
from gptjax.tokenizer.training import CHUNK

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
