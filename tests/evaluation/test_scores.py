"""The direction of a comparison depends on the score, and a non-finite number is never better."""

import math

import pytest

from gptjax.evaluation.scores import LOSS, Score

ACCURACY = Score("validation/accuracy", "accuracy", "accuracy {:.1%}", higher_is_better=True)


@pytest.mark.parametrize("score, good, bad", [(LOSS, 1.0, 2.0), (ACCURACY, 2.0, 1.0)])
def test_better_and_best(score, good, bad):
    assert score.better(good, bad) and not score.better(bad, good) and not score.better(good, good)
    for worthless in (math.nan, math.inf, -math.inf):
        assert score.better(bad, worthless) and not score.better(worthless, good)
    assert score.better(bad, score.worst)
    assert score.best([math.nan, bad, good, bad]) == good and score.best([math.nan]) == score.worst


def test_titles_are_words():
    assert LOSS.title == "loss" and Score("validation/bits_per_byte", "", "").title == "bits per byte"
