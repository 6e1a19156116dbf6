"""A new corpus beside an earlier one: copies of the earlier one's documents are dropped from the new one only."""

import json
import shutil

import numpy as np
import pytest
from pipeline_running import Here, watch

from gptjax.config import ConfigError
from gptjax.corpus.config import default, source, validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources


def text(seed, words=120):
    return " ".join(np.random.default_rng(seed).choice([f"w{i}" for i in range(200)], words))


def prepare(folder, name, texts, **duplicates):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    made = default()
    made.sources = (source(name=name, kind="text", path=f"{folder}/{name}.jsonl"),)
    made.cleaning.update(repair=False, language=False)
    made.tokenizer.name = "byte"
    made.split.validation_fraction = 0.0
    made.duplicates.update(duplicates)
    validate(made)
    listing = list_sources(made.sources, 4000)
    return Pipeline(made, listing, folder / name, Here(), watch).prepare({})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    prepare(folder, "january", [*map(text, range(20)), text(0)])
    prepare(folder, "february", [*map(text, range(20, 40)), f"{text(3)} more"], earlier=(f"{folder}/january",))
    return folder


def test_copies_of_documents_in_earlier_corpora_are_dropped(folder):
    february = json.loads((folder / "february" / "manifest.json").read_text())
    assert february["sources"][0]["dropped"]["near duplicate"]["documents"] == 1
    before = (folder / "january" / "manifest.json").read_bytes()
    again = (text(5), f"{text(6)} and", f"{text(25)}\n", text(50), text(50), text(51))
    march = prepare(folder, "march", again, earlier=(f"{folder}/january", f"{folder}/february"))
    dropped = {reason: counts["documents"] for reason, counts in march["sources"][0]["dropped"].items()}
    assert dropped == {"exact duplicate": 3, "near duplicate": 1}
    assert march["copies"]["documents"] == 6
    assert sum(split["documents"] for split in march["splits"].values()) == 2
    assert (folder / "january" / "manifest.json").read_bytes() == before


def test_a_corpus_of_only_copies_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="no document is left of 1: exact duplicate"):
        prepare(tmp_path, "copies", [text(5)], earlier=(f"{folder}/january",))


def test_with_scope_source_copies_are_searched_only_within_a_source(folder):
    march = prepare(folder, "sourcewise", [text(5), text(60), text(61)], earlier=(f"{folder}/january",), scope="source")
    assert march["sources"][0]["dropped"] == {}


def test_an_earlier_corpus_that_cannot_be_compared_is_refused(folder, tmp_path):
    def refused(message, **duplicates):
        with pytest.raises(ConfigError, match=message):
            prepare(tmp_path, "new", map(text, range(5)), **duplicates)

    refused("january was prepared with ngram 5, this corpus uses", earlier=(f"{folder}/january",), ngram=6)
    refused("needs duplicates.kind = 'near' or 'exact'", earlier=(f"{folder}/january",), kind="none")
    refused("duplicates.earlier: .*none' is not a prepared folder", earlier=(f"{folder}/none",))
    prepare(tmp_path, "unsearched", map(text, range(5)), kind="none")
    refused("unsearched was prepared with duplicates.kind = 'none'", earlier=(f"{tmp_path}/unsearched",))
    shutil.copytree(folder / "january", tmp_path / "january")
    shutil.rmtree(tmp_path / "january" / "work")
    refused("is missing or has changed: earlier corpora must keep their folder work/", earlier=(f"{tmp_path}/january",))
