"""Whole texts: every token is scored once, with as much context as fits; recorded documents are not scored again."""

import json
import math

import numpy as np
import pytest
from prepared_folders import write_prepared
from random_models import MAX_POSITIONS, TOKENIZER, make_model, reference

from gptjax.errors import ConfigError
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.tasks.records import Records
from gptjax.evaluation.text import documents_of, score_texts, windows

BEGIN = TOKENIZER.eos_id


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def answerer(model):
    return ModelAnswerer(*model, TOKENIZER)


def scores(path, answerer, records=None):
    records = Records(None, {}) if records is None else records
    return score_texts(path, answerer.scorer, TOKENIZER, BEGIN, answerer.context, records)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 13, 14, 40])
@pytest.mark.parametrize("context", [1, 7, 8])
def test_windows_score_each_token_once_with_the_context_that_fits(length, context):
    tokens = list(range(length))
    made = windows(tokens, context)
    assert [token for each in made for token in each.tokens[each.first :]] == tokens[1:]
    assert all(len(each.tokens) <= context + 1 for each in made)
    assert all(each.first >= min(each.tokens[each.first], context - context // 2) for each in made)


def test_scores_by_domain_equal_those_of_forward_passes(model, answerer, tmp_path):
    texts = {"short": "a text", "long": "a text that is rather longer than the context of so small a model: " * 2}
    for domain, text in texts.items():
        (tmp_path / domain).mkdir()
        (tmp_path / domain / "one.txt").write_text(text)
    found = scores(tmp_path, answerer)
    assert list(found) == ["long", "short", "all"]
    for domain, text in texts.items():
        parts = windows([BEGIN, *TOKENIZER.encode(text), TOKENIZER.eos_id], MAX_POSITIONS)
        nats = sum(reference(*model, part.tokens, part.first)[0] for part in parts)
        assert found[domain]["loss"] == pytest.approx(-nats / (len(text) + 1), abs=1e-4)
        assert found[domain]["bits_per_byte"] == pytest.approx(-nats / len(text) / math.log(2), abs=1e-3)
        assert found[domain]["tokens"] == len(text) + 1
    assert found["all"]["tokens"] == found["short"]["tokens"] + found["long"]["tokens"]


def test_a_prepared_folder_and_a_file_of_the_same_texts_have_the_same_scores(answerer, tmp_path):
    texts = ["one text", "and another"]
    ids = [[*TOKENIZER.encode(text), TOKENIZER.eos_id] for text in texts]
    folder = write_prepared(tmp_path / "prepared", train=ids, validation=ids)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert scores(folder, answerer) == scores(tmp_path / "texts.jsonl", answerer)


def test_recorded_documents_are_not_scored_again(answerer, tmp_path, monkeypatch):
    file, path = tmp_path / "texts.jsonl", tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("one text", "and another", "and a third")))
    with Records(path, {}) as records:
        whole = scores(file, answerer, records)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:10])  # killed while it wrote the second document
    asked = []
    monkeypatch.setattr(
        answerer.scorer,
        "score",
        lambda parts: asked.extend(parts) or type(answerer.scorer).score(answerer.scorer, parts),
    )
    with Records(path, {}) as records:
        again = scores(file, answerer, records)
    assert np.isclose(again["all"]["loss"], whole["all"]["loss"])
    assert len(asked) == 2 and again["all"]["documents"] == 3


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"\xff\xfe\xff", "must be UTF-8 text"),
        ("a.txt", b"", "it has none"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": 1}\n', "line 2 must be a JSON object with a string 'text'"),
        ("a.jsonl", b"{\n", "line 1 must be a JSON object"),
        ("missing.txt", None, "No such file"),
    ],
)
def test_unreadable_texts_are_reported(answerer, tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        scores(tmp_path / name, answerer)


def test_a_folder_of_another_tokenizer_is_refused(tmp_path):
    folder = write_prepared(tmp_path / "prepared", train=[[5, 2]], validation=[[5, 2]])

    class Other:
        hash = "other"

    with pytest.raises(ConfigError, match="must be prepared with the run's tokenizer"):
        list(documents_of(folder, Other))
