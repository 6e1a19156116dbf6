import math

import numpy as np
import pytest
import sacrebleu

from gptjax.evaluation.tasks.metrics import combined, scores


def test_mean_and_standard_error_of_the_sample():
    found = scores([{"accuracy": value} for value in (1, 0, 0, 1, 1)], ["accuracy"])["accuracy"]
    assert found["value"] == 0.6
    assert found["standard_error"] == pytest.approx(math.sqrt(0.3 / 5))  # n - 1 in the variance
    assert scores([{"accuracy": 1}], ["accuracy"])["accuracy"] == {"value": 1, "standard_error": None}


def test_the_standard_error_of_perplexity_agrees_with_resampling():
    nats = np.random.default_rng(0).gamma(4, 1, 400)
    found = scores([{"nats": -value} for value in nats], ["perplexity"])["perplexity"]
    assert found["value"] == pytest.approx(math.exp(nats.mean()))
    samples = np.random.default_rng(1).choice(nats, (2000, len(nats))).mean(axis=1)
    assert found["standard_error"] == pytest.approx(np.exp(samples).std(), rel=0.1)


def test_an_impossible_text_has_an_infinite_perplexity():
    assert scores([{"nats": -1e6}] * 2, ["perplexity"])["perplexity"]["value"] == math.inf


TEXTS = [
    ("the cat sat on the mat today", ["the cat sat on a mat today", "the cat sat on the mat now"]),
    ("there is a house by the river", ["there is a house near the river"]),
    ("he never came back to us", ["he did not come back"]),
]


@pytest.mark.parametrize(("name", "signature"), [("bleu", "tok:13a|smooth:exp"), ("chrf", "nc:6|nw:0")])
def test_bleu_and_chrf_equal_the_library(name, signature):
    records = [{"text": text, "references": references} for text, references in TEXTS]
    found = scores(records, [name])[name]
    library = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
    texts = [text for text, _ in TEXTS]
    second = [references[1] if len(references) > 1 else None for _, references in TEXTS]
    assert found["value"] == library(texts, [[references[0] for _, references in TEXTS], second]).score
    assert found["value"] > library(texts, [[references[0] for _, references in TEXTS]]).score
    assert signature in found["signature"] and "nrefs:var" in found["signature"]
    assert 0 < found["standard_error"] < 40


def test_without_a_shared_word_bleu_is_zero():
    assert scores([{"text": "x", "references": ["y"]}] * 2, ["bleu"])["bleu"]["value"] == 0


def test_macro_f1_weights_classes_equally():
    right = [0] * 90 + [1] * 10
    always = scores([{"chosen": 0, "right": each} for each in right], ["macro_f1"])["macro_f1"]
    assert always["value"] == pytest.approx((2 * 90 / 190 + 0) / 2)
    perfect = scores([{"chosen": each, "right": each} for each in right], ["macro_f1"])["macro_f1"]
    assert perfect == {"value": 1.0, "standard_error": 0.0}


def test_members_are_combined_with_equal_weights():
    members = [
        {"accuracy": {"value": 0.2, "standard_error": 0.03}},
        {"accuracy": {"value": 0.6, "standard_error": 0.04}},
    ]
    found = combined(members, ["accuracy"])["accuracy"]
    assert found["value"] == pytest.approx(0.4) and found["standard_error"] == pytest.approx(0.025)
