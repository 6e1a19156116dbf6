"""Each approach recovers a known law from losses made by it, within its interval, and says when the runs cannot."""

import numpy as np
import pytest

from gptjax.errors import ConfigError
from gptjax.scaling import fit as fits
from gptjax.scaling.laws import LAWS, Law

TRUE = LAWS["besiroglu"]
BUDGETS = np.geomspace(1e18, 1e21, 4)
CONSTANTS = ("E", "A", "B", "alpha", "beta")


def isoflop_runs(noise: float = 0.0, law: Law = TRUE, spread: float = 4.0, sizes: int = 9, seed: int = 0):
    """Sizes around the best of each budget, with log-normal noise of the loss."""
    parameters = np.concatenate([law.optimal(c)[0] * np.geomspace(1 / spread, spread, sizes) for c in BUDGETS])
    tokens = np.repeat(BUDGETS, sizes) / (6 * parameters)
    noises = np.random.default_rng(seed).normal(0, noise, len(parameters))
    return fits.points_of(parameters, tokens, law.loss(parameters, tokens) * np.exp(noises))


def curves(noise: float = 0.0):
    """Rows along the training of 12 sizes."""
    rows = [(n, d, run) for run, n in enumerate(np.geomspace(1e7, 1e10, 12)) for d in np.geomspace(1e8, 1e12, 60)]
    parameters, tokens, runs = map(np.array, zip(*rows))
    losses = TRUE.loss(parameters, tokens) * np.exp(np.random.default_rng(0).normal(0, noise, len(runs)))
    return fits.Points(parameters, tokens, losses, runs)


def test_the_parametric_fit_finds_the_constants_that_made_the_losses():
    found = fits.parametric(isoflop_runs())
    for name in CONSTANTS:
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=2e-3), name


def test_losses_are_summed_in_the_objective_and_large_residuals_count_linearly():
    zeros = np.zeros(3)
    objective = fits._Objective(zeros, zeros, np.array([0.5, 10.0, -10.0]) * fits.DELTA + np.log(3))
    value, _ = objective(np.zeros(5))  # predicts log(1 + 1 + 1)
    assert value == pytest.approx(0.5 * 0.5**2 + 9.5 + 9.5)
    assert objective.values(np.zeros((2, 5))) == pytest.approx([value, value])


def test_the_gradient_of_the_objective_is_that_of_its_values():
    points = isoflop_runs(1e-3)
    objective = fits._Objective(np.log(points.parameters) - 20, np.log(points.tokens) - 22, np.log(points.losses))
    x = np.array([-0.5, -0.9, 0.6, 0.3, 0.4])
    steps = 1e-7 * np.eye(5)
    by_differences = (objective.values(x + steps) - objective.values(x - steps)) / 2e-7
    np.testing.assert_allclose(objective(x)[1], by_differences, rtol=1e-4)


def test_one_run_gone_wrong_hardly_moves_the_fit():
    points = isoflop_runs(1e-3)
    losses = points.losses.copy()
    losses[4] *= 1.5
    spoilt = fits.points_of(points.parameters, points.tokens, losses)
    assert fits.parametric(spoilt).exponent == pytest.approx(fits.parametric(points).exponent, abs=0.02)


def test_the_best_size_of_each_budget():
    found = fits.profiles(isoflop_runs(spread=2.0))
    assert [profile.flops for profile in found] == pytest.approx(BUDGETS)
    assert [profile.best for profile in found] == pytest.approx(TRUE.optimal(BUDGETS)[0], rel=0.03)
    assert all(profile.inside for profile in found)
    assert found[0].loss == pytest.approx(TRUE.loss(*TRUE.optimal(BUDGETS[0])), rel=1e-3)


@pytest.mark.parametrize(
    "method, points, off",
    [(fits.isoflop, isoflop_runs(spread=2.0), 0.01), (fits.envelope, curves(), 0.03)],
    ids=["isoflop", "envelope"],
)
def test_the_split_of_a_budget_without_noise(method, points, off):
    found = method(points)
    assert found.exponent == pytest.approx(TRUE.exponent, abs=off)
    assert found.optimal(1e20)[0] == pytest.approx(TRUE.optimal(1e20)[0], rel=0.1)


def of_profiles(points, samples):
    return fits.with_intervals(fits.isoflop, points, samples)


@pytest.mark.parametrize("method", [of_profiles, fits.parametric_with_intervals])
def test_the_interval_holds_the_law_that_made_noisy_losses(method):
    fit = method(isoflop_runs(1e-3), samples=40)
    low, high = fit.interval(lambda law: law.exponent)
    assert low < TRUE.exponent < high and high - low < 0.1
    assert low < fit.law.exponent < high


def test_the_interval_of_a_loss_holds_nine_in_ten_further_runs_of_four_times_the_compute():
    fit = fits.parametric_with_intervals(isoflop_runs(3e-3), samples=40)
    parameters, tokens = TRUE.optimal(4 * BUDGETS[-1])
    low, high = fits.loss_interval(fit, parameters, tokens)
    further = TRUE.loss(parameters, tokens) * np.exp(np.random.default_rng(1).normal(0, 3e-3, 200))
    assert 0.8 < np.mean((low < further) & (further < high)) <= 1
    assert high / low < 1.03
    narrow = fits.loss_interval(fit, parameters, tokens, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_a_draw_takes_all_rows_of_a_run_or_none():
    points, seen = curves(), []

    def method(drawn):
        seen.append(np.unique(drawn.runs, return_counts=True)[1])
        return drawn

    fits.with_intervals(method, points, samples=3)
    assert all((rows == 60).all() and len(rows) == 12 for rows in seen)


def test_the_final_row_of_a_run_is_that_of_most_tokens():
    points = curves()
    final = points[np.random.default_rng(0).permutation(len(points.runs))].final()
    assert (final.tokens == 1e12).all() and sorted(final.runs) == list(range(12))


def uphill(points):
    return fits.points_of(points.parameters, points.tokens, points.parameters / 1e9 + 1)


@pytest.mark.parametrize(
    "method, points, words",
    [
        (fits.parametric, isoflop_runs(sizes=1), "4 runs.*5 constants"),
        (fits.parametric, uphill(isoflop_runs()), "do not determine alpha"),
        (fits.isoflop, isoflop_runs(sizes=2), "0 budgets"),
        (fits.isoflop, uphill(isoflop_runs()), "0 budgets.*1e.18 FLOPs at 2"),
        (fits.envelope, curves()[curves().runs < 3], "3 sizes, fewer than two"),
        (
            lambda points: fits.with_intervals(fits.isoflop, points, 5),
            isoflop_runs(sizes=3)[np.arange(6)],
            "most draws",
        ),
    ],
)
def test_runs_that_determine_no_law_are_refused(method, points, words):
    with pytest.raises(ConfigError, match=words):
        method(points)


def test_a_loss_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match="losses = nan: must be a positive number"):
        fits.points_of([1e6], [1e9], [np.nan])
