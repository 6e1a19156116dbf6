"""Loss curves exist, show what the rows hold, and survive single points, gaps and NaN."""

import math

import matplotlib.image
import numpy as np
import pytest

from gptjax.training import plots
from gptjax.training.plots import _mean_course, _series, compare_runs, plot_run, smooth
from gptjax.training.writers import MetricsWriter

PNG = b"\x89PNG"


def make_run(workdir, num_steps=200, loss_of=lambda step: 2 + 3 * math.exp(-step / 40), tokens=True):
    with MetricsWriter(workdir, tensorboard=False) as writer:
        for step in range(1, num_steps + 1):
            row = {"train/loss": loss_of(step), "learning_rate": 1e-3 * (1 - step / num_steps)}
            writer.write(step, row | ({"tokens": step * 4096} if tokens else {}))
            if step % 50 == 0:
                writer.write(step, {"validation/loss": loss_of(step) + 0.1, "tokens": step * 4096})
    return workdir


def test_one_picture_by_step_and_one_by_tokens(tmp_path):
    paths = plot_run(make_run(tmp_path / "run"))
    assert [path.name for path in paths] == ["loss_by_step.png", "loss_by_tokens.png"]
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    picture = matplotlib.image.imread(paths[0])
    assert (
        picture.shape[1] > 1000 and 0.005 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.5
    )  # neither blank nor full
    assert sorted(p.name for p in paths[0].parent.iterdir()) == sorted(p.name for p in paths)  # no temporary files


@pytest.fixture
def drawn(monkeypatch):
    """A function of a run's folder → for each of its figures the y values of every line beside the learning rate."""
    figures, save_figure = [], plots.save_figure
    monkeypatch.setattr(
        plots, "save_figure", lambda figure, path: (figures.append(figure), save_figure(figure, path))[1]
    )

    def lines(workdir):
        figures.clear()
        plot_run(workdir)
        return [[np.asarray(line.get_ydata(), float) for line in figure.axes[0].lines] for figure in figures]

    return lines


@pytest.mark.parametrize("num_steps", [1, 3, 60])
def test_few_points_are_drawn_where_they_are(tmp_path, drawn, num_steps):
    for lines in drawn(make_run(tmp_path, num_steps, lambda step: 10.0 - step / 100)):
        expected = 10.0 - np.arange(1, num_steps + 1) / 100
        assert any(len(line) == num_steps and np.allclose(line, expected) for line in lines)


def test_values_that_are_not_finite_are_gaps(tmp_path, drawn):
    spoiled = {5: math.nan, 6: math.inf, 50: math.nan}
    expected = [math.nan if step in spoiled else 3.0 for step in range(1, 101)]
    by_step, by_tokens = drawn(make_run(tmp_path, 100, lambda step: spoiled.get(step, 3.0)))
    for lines in (by_step, by_tokens):
        assert any(np.array_equal(line, expected, equal_nan=True) for line in lines)


def test_nothing_to_draw_draws_nothing(tmp_path):
    assert plot_run(tmp_path) == []
    assert plot_run(make_run(tmp_path, 30, lambda step: math.nan)) == []
    assert [p.name for p in plot_run(make_run(tmp_path, 10, tokens=False))] == ["loss_by_step.png"]


def test_series_keep_rows_that_have_both_and_turn_infinities_into_gaps():
    rows = [{"step": 1, "a": 2.0}, {"step": 2}, {"step": 3, "a": math.inf}, {"step": 4, "a": None}, {"step": 5, "a": 1}]
    x, y = _series(rows, "step", "a")
    np.testing.assert_array_equal(x, [1, 3, 5])
    np.testing.assert_array_equal(y, [2.0, math.nan, 1.0])


def test_smoothing_follows_a_slope_ignores_a_spike_and_keeps_gaps():
    slope = np.linspace(5, 2, 60)
    np.testing.assert_allclose(smooth(slope, reach=5), slope)
    spiked = slope.copy()
    spiked[30], spiked[40] = 40.0, math.nan
    smoothed = smooth(spiked, reach=5)
    assert np.flatnonzero(np.isnan(smoothed)).tolist() == [40]
    assert np.nanmax(np.abs(smoothed - slope)) < 0.1
    noise = np.random.default_rng(0).normal(size=2000)
    assert smooth(noise, reach=50).std() < 0.25


def test_comparing_runs(tmp_path):
    runs = [make_run(tmp_path / name, 100) for name in "ab"]
    for metric in ("validation/loss", "train/loss"):
        path = compare_runs(
            {"first": [runs[0]], "both": runs}, tmp_path / "out" / "compared.png", metric=metric, x_name="tokens"
        )
        assert path.read_bytes().startswith(PNG)
    compare_runs({"first": [runs[0]], "missing": [tmp_path / "missing"]}, tmp_path / "compared.png")
    with pytest.raises(ValueError, match="no run has 'validation/accuracy'"):
        compare_runs({"first": runs}, tmp_path / "x.png", metric="validation/accuracy")


def test_the_mean_of_runs_is_of_those_that_have_a_point_and_the_band_reaches_to_the_extremes():
    long = (np.array([1.0, 2, 3]), np.array([5.0, 4, 3]))
    short = (np.array([1.0, 3]), np.array([7.0, math.nan]))
    x, mean, low, high = _mean_course([long, short])
    np.testing.assert_array_equal(x, [1, 2, 3])
    np.testing.assert_array_equal(mean, [6, 4, 3])
    np.testing.assert_array_equal(low, [5, 4, 3])
    np.testing.assert_array_equal(high, [7, 4, 3])
    only_gaps = (np.array([1.0]), np.array([math.nan]))
    assert np.isnan(_mean_course([only_gaps])[1]).all()
