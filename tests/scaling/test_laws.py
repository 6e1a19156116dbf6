"""The published laws give their papers' own numbers, and the best split of a budget is the lowest loss that it buys."""

import numpy as np
import pytest

from gptjax.errors import ConfigError
from gptjax.scaling.laws import ALLOCATIONS, DEFAULT, LAWS, TUNING, Law

GOPHER = 5.76e23  # FLOPs


@pytest.mark.parametrize(
    "name, ratios",
    [("besiroglu", (25.7, 22.9, 18.4)), ("chinchilla", (18.6, 27.8, 58.9))],
)
def test_tokens_per_parameter_of_a_budget(name, ratios):
    parameters, tokens = LAWS[name].optimal(np.array([1e18, 1e20, GOPHER]))
    np.testing.assert_allclose(tokens / parameters, ratios, rtol=3e-3)


def test_the_constants_as_chinchilla_prints_them_would_ask_for_half_as_much_again():
    law = LAWS["chinchilla"]
    assert [f"{value:.5g}" for value in (law.E, law.A, law.B)] == ["1.6934", "406.4", "410.72"]
    printed = Law(1.69, 406.4, 410.7, 0.34, 0.28, "as printed")
    parameters, tokens = printed.optimal(GOPHER)
    assert tokens / parameters == pytest.approx(92.6, rel=1e-3)
    assert law.optimal(GOPHER)[0] == pytest.approx(40e9, rel=0.02)  # "40 B" in the paper's figure 4
    assert not any(each.alpha == 0.34 for each in LAWS.values())


@pytest.mark.parametrize(
    "name, flops, parameters, tokens",
    [
        # Rows of tables 3 and A3 of arXiv:2203.15556; the paper rounds the exponents to two digits.
        ("chinchilla_envelope", 1.21e20, 1e9, 20.2e9),
        ("chinchilla_envelope", 1.23e22, 10e9, 205.1e9),
        ("chinchilla_envelope", 1.27e26, 1e12, 21.2e12),
        ("chinchilla_isoflop", 1.20e20, 1e9, 20.0e9),
        ("chinchilla_isoflop", 1.32e22, 10e9, 219.5e9),
        ("chinchilla_isoflop", 1.59e26, 1e12, 26.5e12),
        ("chinchilla_envelope", GOPHER, 67e9, 1.5e12),
        ("chinchilla_isoflop", 6.88e23, 67e9, 1.7e12),
        ("llama3", 3.8e25, 605e9, 10.46e12),  # the paper says 402 B and 16.55 T: see its comment
    ],
)
def test_a_published_split_of_a_budget(name, flops, parameters, tokens):
    assert ALLOCATIONS[name].optimal(flops) == pytest.approx((parameters, tokens), rel=0.05)


def test_chinchillas_70_billion_parameters_and_1400_billion_tokens_within_15_percent():
    for law in (ALLOCATIONS["chinchilla_envelope"], ALLOCATIONS["chinchilla_isoflop"], LAWS[DEFAULT]):
        parameters, tokens = law.optimal(6 * 70e9 * 1.4e12)
        assert parameters == pytest.approx(70e9, rel=0.15) and tokens == pytest.approx(1.4e12, rel=0.15)


def test_deepseek_splits_by_its_own_constants():
    parameters, tokens = ALLOCATIONS["deepseek"].optimal(1e20)
    assert tokens == pytest.approx(5.8316 * 1e20**0.4757, rel=1e-3)
    assert 6 * parameters == pytest.approx(0.1715 * 1e20**0.5243)
    assert ALLOCATIONS["deepseek"].counts == TUNING["deepseek"].counts == "non_embedding"


def test_learning_rate_and_batch():
    law, small = TUNING["step_law"], (124e6, 10e9)
    assert law.learning_rate(*small) == pytest.approx(3.57e-3, rel=2e-3)
    assert law.batch_tokens(*small) == pytest.approx(297e3, rel=2e-3)
    assert law.learning_rate(0.44e9, 10e9) == pytest.approx(1.45e-3, rel=4e-3)
    law, flops = TUNING["deepseek"], 6 * 1e9 * 20e9
    assert law.learning_rate(1e9, 20e9) == pytest.approx(0.3118 * flops**-0.125)
    assert law.batch_tokens(1e9, 20e9) == pytest.approx(0.2920 * flops**0.3271)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_best_split_is_the_lowest_loss_of_the_budget(law):
    flops = 1e20
    sizes = np.geomspace(1e7, 1e11, 4001)
    losses = law.loss(sizes, flops / (6 * sizes))
    parameters, tokens = law.optimal(flops)
    assert parameters == pytest.approx(sizes[np.argmin(losses)], rel=3e-3)
    assert 6 * parameters * tokens == pytest.approx(flops)
    assert law.loss(parameters, tokens) == pytest.approx(losses.min(), abs=1e-7)
    assert law.optimal_tokens(parameters) == pytest.approx(tokens)
    assert law.optimal_parameters(tokens) == pytest.approx(parameters)
    assert law.flops_for(law.loss(parameters, tokens)) == pytest.approx(flops)
    assert "arXiv:" in law.source


def test_a_loss_below_that_of_infinite_compute_is_refused_with_the_least():
    with pytest.raises(ConfigError, match=r"1\.5.*above 1\.817"):
        LAWS[DEFAULT].flops_for(1.5)
