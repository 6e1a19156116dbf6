"""Repeated data: Muennighoff's released figures, and a penalty under which repeating raises the loss."""

import csv
from pathlib import Path

import numpy as np
import pytest

from gptjax.errors import ConfigError
from gptjax.scaling.fit import points_of
from gptjax.scaling.laws import ALLOCATIONS, LAWS, TUNING
from gptjax.scaling.repetition import (
    ON_C4,
    REPETITION,
    DiminishingReturns,
    OverfittingPenalty,
    fit_coefficient,
    fit_penalty,
    optimal,
)

LAW = LAWS["muennighoff"]
UNIQUE = 25e9


@pytest.mark.parametrize(
    "parameters, tokens, loss", [(6.34e9, 242e9, 2.2256440889984477), (8.67e9, 178e9, 2.2269634075087867)]
)
def test_the_two_models_of_muennighoffs_figure_1(parameters, tokens, loss):
    """As printed by github.com/huggingface/datablations."""
    assert REPETITION.loss(LAW, parameters, tokens, UNIQUE) == pytest.approx(loss, rel=1e-9)


def test_muennighoffs_best_split_of_a_budget_with_25_billion_unique_tokens():
    parameters, tokens = optimal(LAW, REPETITION, 6 * 8.67e9 * 178e9, UNIQUE)
    assert (parameters, tokens) == pytest.approx((6.8e9, 227e9), rel=0.01)


def test_repeated_tokens_are_nearly_new_for_four_epochs_and_worth_15_times_the_text_at_most():
    returns = DiminishingReturns()
    assert returns.effective_tokens(UNIQUE, UNIQUE) == UNIQUE
    assert returns.effective_tokens(UNIQUE / 2, UNIQUE) == UNIQUE / 2
    assert returns.effective_tokens(4 * UNIQUE, UNIQUE) == pytest.approx(4 * UNIQUE, rel=0.08)
    assert returns.effective_tokens(1e6 * UNIQUE, UNIQUE) == pytest.approx((1 + 15.387756) * UNIQUE)


def test_enough_unique_text_leaves_the_law_as_it_is():
    parameters, tokens = LAW.optimal(1e21)
    assert REPETITION.loss(LAW, parameters, tokens, 10 * tokens) == pytest.approx(LAW.loss(parameters, tokens))
    assert optimal(LAW, REPETITION, 1e21, 10 * tokens) == pytest.approx((parameters, tokens), rel=1e-3)


def test_the_penalty_makes_repetition_harmful_beyond_a_point_which_diminishing_returns_cannot():
    penalty = OverfittingPenalty(penalty=0.02, delta=1.0, kappa=0.5)

    def course(law):
        return [law.loss(LAW, 1e9, epochs * 1e9, 1e9) for epochs in (1, 4, 16, 64, 256)]

    assert course(penalty)[0] == LAW.loss(1e9, 1e9)
    assert course(penalty)[1] - LAW.loss(1e9, 4e9) == pytest.approx(0.02 * 3)
    assert course(penalty) != sorted(course(penalty), reverse=True)
    assert course(REPETITION) == sorted(course(REPETITION), reverse=True)


def _published() -> np.ndarray:
    file = Path(__file__).parents[2] / "experiments" / "scaling_laws" / "repeated.csv"
    with open(file, encoding="utf-8", newline="") as rows:
        return np.array([[float(each) for each in list(row.values())[:4]] for row in csv.DictReader(rows)])


def test_the_penalty_on_c4_is_the_fit_to_the_published_runs_and_shows_their_rise():
    rows = _published()
    parameters, tokens, unique, losses = rows[(rows[:, 1] >= 1e9) & (rows[:, 1] <= 60 * rows[:, 2])].T
    law, penalty = fit_penalty(points_of(parameters, tokens, losses), unique)
    found = (penalty.penalty, penalty.delta, penalty.kappa)
    assert found == pytest.approx((ON_C4.penalty, ON_C4.delta, ON_C4.kappa), abs=5e-4)

    measured = {tuple(row[:3]): row[3] for row in rows}
    few, many = (421.2e6, 2.7e9, 0.1e9), (421.2e6, 5.9e9, 0.1e9)
    assert measured[many] > measured[few] + 0.4
    assert ON_C4.loss(law, *many) > ON_C4.loss(law, *few) + 0.2
    assert REPETITION.loss(law, *many) < REPETITION.loss(law, *few)


def test_the_penalty_has_no_published_constants_and_its_source_says_to_what_they_were_fitted():
    with pytest.raises(TypeError):
        OverfittingPenalty()
    assert OverfittingPenalty(1.0, 1.0, 1.0).source != ON_C4.source
    assert ON_C4.source == "the form of arXiv:2605.01640, fitted to the runs of arXiv:2305.16264 on C4"
    published = [each.source for table in (LAWS, ALLOCATIONS, TUNING) for each in table.values()]
    assert not [each for each in [*published, REPETITION.source] if "fitted" in each or "arXiv:" not in each]


def test_a_synthetic_penalty_is_recovered():
    sizes, texts, epochs = (each.ravel() for each in np.meshgrid([1e8, 1e9, 4e9], [1e9, 1e10], [1, 4, 16, 40]))
    truth = OverfittingPenalty(0.02, 1.1, 0.6)
    losses = [truth.loss(LAW, n, u * passes, u) for n, u, passes in zip(sizes, texts, epochs)]
    law, penalty = fit_penalty(points_of(sizes, texts * epochs, losses), texts)
    assert (penalty.penalty, penalty.delta, penalty.kappa) == pytest.approx((0.02, 1.1, 0.6), rel=1e-3)
    assert (law.E, law.alpha) == pytest.approx((LAW.E, LAW.alpha), rel=1e-3)


def test_the_coefficient_of_a_text_is_recovered_from_three_runs():
    """The exponents are those of other runs, and so is the law of unique text."""
    truth, size, text = OverfittingPenalty(0.05, ON_C4.delta, ON_C4.kappa), 2e8, 5e8
    tokens = text * np.array([1.0, 4.0, 30.0])
    noise = np.array([0.003, -0.002, 0.001])
    losses = [truth.loss(LAW, size, each, text) for each in tokens] + noise
    found = fit_coefficient(points_of([size] * 3, tokens, losses), np.full(3, text), LAW)
    assert found.penalty == pytest.approx(0.05, rel=0.01)
    assert (found.delta, found.kappa) == (ON_C4.delta, ON_C4.kappa)
    for passes, losses, words in ((1, 3.0, "of which none repeats"), (9, 0.5, "lower losses than the law")):
        with pytest.raises(ConfigError, match=words):
            fit_coefficient(points_of([size], [passes * text], [losses]), np.array([text]), LAW)


def test_runs_without_repetition_determine_no_penalty():
    with pytest.raises(ConfigError, match=r"8 runs, of which 0 repeat their text"):
        fit_penalty(points_of([1e9] * 8, [1e10] * 8, [3.0] * 8), np.full(8, 1e10))


@pytest.mark.parametrize("law", [REPETITION, OverfittingPenalty(1.0, 1.0, 1.0)], ids=["returns", "penalty"])
def test_no_unique_text_is_refused(law):
    with pytest.raises(ConfigError, match=r"0 unique tokens: must be more than 0"):
        law.loss(LAW, 1e9, 1e9, 0)
