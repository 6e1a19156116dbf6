"""Runs a corpus pipeline within a test, in this process and without output."""

import json
from contextlib import contextmanager
from unittest import mock

import numpy as np

from gptjax.corpus.config import default, source, validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources


class Here:
    """An executor that runs all tasks in this process."""

    def run(self, function, items):
        return ((index, function(item)) for index, item in enumerate(items))


@contextmanager
def watch(stage, sizes):
    yield lambda number, result: None


WORDS = ["alpha", "beta", "gamma", "delta", "return", "self", "the", "of", "naïve", "1984"]


def text(seed, words=120):
    return " ".join(np.random.default_rng(seed).choice(WORDS, words)) + f" number {seed}\n"


def write(folder, texts):
    """Writes ten records per file."""
    folder.mkdir(parents=True)
    for start in range(0, len(texts), 10):
        lines = [json.dumps({"text": one}) + "\n" for one in texts[start : start + 10]]
        (folder / f"{start:03d}.jsonl").write_text("".join(lines))


def config(folder, **fields):
    made = default()
    made.sources = (
        source(name="books", kind="text", path=f"{folder}/books", license="CC0", weight=fields.pop("weight", 1.0)),
        source(name="web", kind="text", path=f"{folder}/web"),
    )
    made.max_document_megabytes = 0.005
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.2
    for field, value in fields.items():
        section, _, name = field.rpartition("__")
        (made[section] if section else made)[name] = value
    validate(made)
    return made


def prepare(config, output, shard_bytes=20_000):
    """The manifest. The card's pictures, which take longer than all the rest, are not drawn."""
    listing = list_sources(config.sources, shard_bytes)
    with mock.patch("gptjax.corpus.report.draw", lambda folder, manifest: {}):
        return Pipeline(config, listing, output, Here(), watch).prepare({})
