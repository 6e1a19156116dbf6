"""Scores: a user's function gives every document a number; rules, sampling weights and files of columns use it."""

import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline_running import config, prepare, text, write

from gptjax.config import ConfigError
from gptjax.corpus.config import score, validate

MODULE = """
def number(documents, divide=1.0):
    assert set(documents[0]) == {"text", "uri", "source", "license", "language"}
    return [int(d["text"].split()[-1]) / divide for d in documents]

def short(documents):
    return [1.0]

def odd(documents):
    return ["a" for d in documents]

def negative(documents):
    return [-1 for d in documents]
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a config of twenty documents, numbered from 0, with some scores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_scores.py").write_text(MODULE)
    write(tmp_path / "books", [text(seed) for seed in range(20)])
    write(tmp_path / "web", [text(seed) for seed in range(100, 103)])
    yield lambda **fields: config(tmp_path, split__validation_fraction=0.0, duplicates__kind="none", **fields)
    sys.modules.pop("my_scores", None)


def table(folder):
    return pq.read_table(sorted(folder.glob("documents-*.parquet")))


def test_a_score_is_a_column_that_rules_use(made, tmp_path):
    scores = (score(name="number", function="my_scores:number", min=2.5, max=50, divide=2.0),)
    manifest = prepare(made(scores=scores, documents=True), tmp_path / "out")
    rows = table(tmp_path / "out").to_pylist()
    assert len(rows) == 23
    for row in rows:
        number = int(row["text"].split()[-1])
        assert row["score_number"] == number / 2
        reason = "score.min_number" if number < 5 else "score.max_number" if number > 100 else ""
        assert row["reason"] == reason
    assert manifest["splits"]["train"]["documents"] == 16
    assert {"id", "uri", "license", "language", "words", "bytes", "representative"} <= set(rows[0])


def test_a_score_multiplies_the_weight_of_the_source(made, tmp_path):
    scores = (score(name="number", function="my_scores:number", weight=True, divide=10.0),)
    manifest = prepare(made(scores=scores), tmp_path / "out")
    weights = np.array([*range(20), 100, 101, 102]) / 10
    repeats = manifest["splits"]["train"]["documents"]
    assert np.floor(weights).sum() <= repeats <= np.ceil(weights).sum() and repeats != 23
    assert not list((tmp_path / "out").glob("documents-*"))


@pytest.mark.parametrize(
    "function, fields, message",
    [
        ("short", {}, "must return a number for each of"),
        ("odd", {}, "must return numbers, not 'a'"),
        ("negative", {"weight": True}, "a weight must not be negative"),
    ],
)
def test_a_function_that_gives_no_numbers_is_refused(made, tmp_path, function, fields, message):
    with pytest.raises(ConfigError, match=f"scores: x: 'my_scores:{function}'.*{message}"):
        prepare(made(scores=(score(name="x", function=f"my_scores:{function}", **fields),)), tmp_path / "out")


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(name="a b", function="my_scores:number"), "scores: name = 'a b'"),
        (dict(name="x", function="my_scores:nmber"), "nmber"),
        (dict(name="x", function="my_scores:number", divid=2), "must take documents and its options"),
        (dict(name="x", function="my_scores:number", min="1"), "scores: x: min = '1': must be a number"),
    ],
)
def test_a_mistake_in_a_score_is_found_before_anything_is_read(made, fields, message):
    with pytest.raises(ConfigError, match=message):
        made(scores=(score(**fields),))


def test_languages_have_their_own_thresholds(made, tmp_path):
    given = made(documents=True)
    for one in given.sources:
        one.recipe, one.language = "text", "de" if one.name == "books" else "fr"
    given.cleaning.recipes.text = ("gopher_quality.min_words",)
    given.cleaning.by_language = {"de": {"gopher_quality": {"min_words": 1000}}}
    validate(given)
    prepare(given, tmp_path / "out")
    reasons = {(row["source"], row["reason"]) for row in table(tmp_path / "out").to_pylist()}
    assert reasons == {("books", "gopher_quality.min_words"), ("web", "")}
    given.cleaning.by_language = {"de": {"gopher_quality": {"min_wrods": 1}}}
    with pytest.raises(ConfigError, match=r"cleaning\.by_language\.de: there is no rule"):
        validate(given)
