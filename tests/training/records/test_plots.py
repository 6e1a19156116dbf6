"""Loss curves are drawn, show the values of the rows, and handle single points, gaps and NaN."""

import math

import matplotlib.image
import numpy as np
import pytest

from gptjax.sweeping import figures as sweep_figures
from gptjax.training.records import plots
from gptjax.training.records.plots import _mean_course, compare_runs, plot_run, series_of, smooth
from gptjax.training.records.writers import MetricsWriter

PNG = b"\x89PNG"


def make_run(workdir, num_steps=200, loss_of=lambda step: 2 + 3 * math.exp(-step / 40), tokens=True):
    with MetricsWriter(workdir, tensorboard=False) as writer:
        for step in range(1, num_steps + 1):
            row = {"train/loss": loss_of(step), "learning_rate": 1e-3 * (1 - step / num_steps)}
            writer.write(step, row | ({"tokens": step * 4096} if tokens else {}))
            if step % 50 == 0:
                writer.write(step, {"validation/loss": loss_of(step) + 0.1, "tokens": step * 4096})
    return workdir


def test_one_figure_by_step_and_one_by_tokens(tmp_path):
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
    """A function from a run's folder to the y values of every line, except learning rates, of each of its figures."""
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
def test_few_points_are_drawn_unsmoothed(tmp_path, drawn, num_steps):
    for lines in drawn(make_run(tmp_path, num_steps, lambda step: 10.0 - step / 100)):
        expected = 10.0 - np.arange(1, num_steps + 1) / 100
        assert any(len(line) == num_steps and np.allclose(line, expected) for line in lines)


def test_non_finite_values_are_gaps(tmp_path, drawn):
    spoiled = {5: math.nan, 6: math.inf, 50: math.nan}
    expected = [math.nan if step in spoiled else 3.0 for step in range(1, 101)]
    by_step, by_tokens = drawn(make_run(tmp_path, 100, lambda step: spoiled.get(step, 3.0)))
    for lines in (by_step, by_tokens):
        assert any(np.array_equal(line, expected, equal_nan=True) for line in lines)


def test_without_data_nothing_is_drawn(tmp_path):
    assert plot_run(tmp_path) == []
    assert plot_run(make_run(tmp_path, 30, lambda step: math.nan)) == []
    assert [p.name for p in plot_run(make_run(tmp_path, 10, tokens=False))] == ["loss_by_step.png"]


def test_series_have_the_rows_with_both_values_and_infinities_become_gaps():
    rows = [{"step": 1, "a": 2.0}, {"step": 2}, {"step": 3, "a": math.inf}, {"step": 4, "a": None}, {"step": 5, "a": 1}]
    x, y = series_of(rows, "step", "a")
    np.testing.assert_array_equal(x, [1, 3, 5])
    np.testing.assert_array_equal(y, [2.0, math.nan, 1.0])


def test_smoothing_follows_a_slope_ignores_a_spike_and_needs_complete_windows():
    slope = np.linspace(5, 2, 60)
    np.testing.assert_allclose(smooth(slope, reach=5)[5:-5], slope[5:-5])
    assert np.isnan(smooth(slope, reach=5)[[*range(5), *range(-5, 0)]]).all()
    spiked = slope.copy()
    spiked[30], spiked[40] = 40.0, math.nan
    smoothed = smooth(spiked, reach=5)
    assert np.flatnonzero(np.isnan(smoothed[5:-5])).tolist() == [35]
    assert np.nanmax(np.abs(smoothed - slope)) < 0.1
    noise = np.random.default_rng(0).normal(size=2000)
    assert np.nanstd(smooth(noise, reach=50)) < 0.25


@pytest.fixture
def figures(monkeypatch):
    """The saved figures, with the layout of their files."""
    kept, save_figure = [], plots.save_figure

    def save(figure, path):
        kept.append(figure)
        return save_figure(figure, path)

    monkeypatch.setattr(plots, "save_figure", save)
    monkeypatch.setattr(sweep_figures, "save_figure", save)
    return kept


def legend_boxes(figure):
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [legend.get_window_extent() for legend in legends]


def check_is_readable(figure):
    """Title and axes have words; legends cover neither axes nor titles; everything is inside the figure."""
    upper, lower = figure.axes[0], figure.axes[-1]
    assert upper.get_title(loc="left") and upper.get_ylabel() and lower.get_xlabel()
    assert not any("/" in text or "_" in text for text in (upper.get_ylabel(), lower.get_xlabel()))
    for box in legend_boxes(figure):
        assert not any(box.overlaps(axes.get_window_extent().padded(-3)) for axes in figure.axes)
        assert not any(box.overlaps(axes._left_title.get_window_extent()) for axes in figure.axes)
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize("with_muon", [False, True])
def test_a_runs_figure_names_its_smoothing_and_shows_every_learning_rate(tmp_path, figures, with_muon):
    with MetricsWriter(tmp_path / "a $run$", tensorboard=False) as writer:
        for step in range(1, 101):
            row = {"train/loss": 300 / step, "learning_rate": 1e-3, "tokens": 8 * step}
            writer.write(step, row | ({"muon_learning_rate": 0.02 * step} if with_muon else {}))
        writer.write(100, {"validation/loss": 4.0, "tokens": 800})
    plot_run(tmp_path / "a $run$")
    for figure in figures:
        check_is_readable(figure)
        losses, rates = figure.axes
        assert "median of 5 logged values" in losses.get_legend().get_texts()[0].get_text()
        assert losses.get_ylabel() == "loss (nats per token)" and rates.get_ylabel() == "learning rate"
        assert [line.get_label() for line in rates.lines][:1] == ["AdamW"] and len(rates.lines) == 1 + with_muon
        if with_muon:
            assert [text.get_text() for text in rates.get_legend().get_texts()] == ["AdamW", "Muon"]
            np.testing.assert_allclose(rates.lines[1].get_ydata(), 0.02 * np.arange(1, 101))


@pytest.mark.parametrize("num_layers, drops", [(2, 0.1), (20, None)])
def test_the_load_of_experts_and_the_routers_are_drawn(tmp_path, figures, num_layers, drops):
    """All layers and experts if there are few; eight of many layers, including the first and the last."""
    load_LE = np.arange(num_layers * 4.0).reshape(num_layers, 4)
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        for step in (10, 20, 30):
            row = {
                "train/router_entropy": 1.0 + step,
                "train/experts_unused": 0.2,
                "train/expert_load": load_LE.tolist(),
            }
            writer.write(step, row | ({"train/expert_drops": drops} if drops else {}))
    assert [path.name for path in plot_run(tmp_path)] == ["expert_load.png", "routers.png"]
    load, routers = figures
    panels = load.axes[:-1]  # the last axes are the colour scale
    assert len(panels) == min(num_layers, 8)
    for panel, layer in ((panels[0], 0), (panels[-1], num_layers - 1)):
        assert panel.get_ylabel() == f"router {layer + 1}"
        drawn_ES = panel.collections[0].get_array().reshape(4, 3)
        np.testing.assert_array_equal(drawn_ES, np.repeat(load_LE[layer][:, None], 3, axis=1))
    check_is_readable(routers)
    np.testing.assert_array_equal(routers.axes[0].lines[0].get_ydata(), [11, 21, 31])
    names = [line.get_label() for line in routers.axes[1].lines]
    assert names == (["choices dropped"] if drops else []) + ["experts that no token chose"]


@pytest.mark.parametrize("metric", ["train/loss", "validation/loss", "tokens_per_second"])
def test_a_comparison_has_its_legend_beside_the_curves(tmp_path, figures, metric):
    for name in ("a", "b" * 60, "c $x$"):
        with MetricsWriter(tmp_path / name, tensorboard=False) as writer:
            for step in range(1, 61):
                writer.write(step, {metric: 10.0 - step / 10})
    compare_runs({path.name: [path] for path in sorted(tmp_path.iterdir())}, tmp_path / "out.png", metric)
    (figure,) = figures
    check_is_readable(figure)
    assert (figure._supxlabel is not None) == (metric == "train/loss")


def test_a_figure_of_a_sweep_contains_its_error_bars_and_leaves_out_diverged_runs(tmp_path, figures):
    settings = [
        {"model.width": width, "optimizer.learning_rate": rate} for width in (8, 16) for rate in (0.1, 0.2, 0.4)
    ]
    scores = [(3.0, 3.9), (2.9, 3.0), (50.0, 60.0), (3.1, 3.2), (2.0, 3.4), (2.8, 2.9)]
    groups = [sweep_figures.Group(str(i), s, (), (), v) for i, (s, v) in enumerate(zip(settings, scores))]
    sweep_figures.along(groups, "validation/loss", "optimizer.learning_rate", tmp_path / "along.png")
    (figure,) = figures
    check_is_readable(figure)
    low, high = figure.axes[0].get_ylim()
    assert low < 2.0 and 3.9 < high < 10
    assert figure.axes[0].get_xlabel() == "learning rate"


@pytest.mark.parametrize("higher_is_better", [False, True])
def test_the_best_of_a_sweep_is_in_its_figure_and_the_worst_may_be_outside(tmp_path, figures, higher_is_better):
    accuracies = [(0.5,), (0.52,), (0.51,), (0.9, 0.8), (-3.0,), (math.nan,)]
    sign = 1 if higher_is_better else -1
    groups = [
        sweep_figures.Group(str(i), {"model.width": 8 + i}, (), (), tuple(sign * value for value in values))
        for i, values in enumerate(accuracies)
    ]
    sweep_figures.along(groups, "validation/accuracy", "model.width", tmp_path / "along.png", higher_is_better)
    (axes,) = figures[0].axes
    low, high = sorted(sign * limit for limit in axes.get_ylim())
    assert -1 < low < 0.5 and 0.9 < high < 1.1
    (ring,) = [line for line in axes.lines if line.get_fillstyle() == "none"]
    np.testing.assert_allclose(ring.get_xydata(), [[11, sign * 0.85]])


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


def test_the_mean_is_over_runs_that_have_the_point_and_the_band_reaches_the_extremes():
    long = (np.array([1.0, 2, 3]), np.array([5.0, 4, 3]))
    short = (np.array([1.0, 3]), np.array([7.0, math.nan]))
    x, mean, low, high = _mean_course([long, short])
    np.testing.assert_array_equal(x, [1, 2, 3])
    np.testing.assert_array_equal(mean, [6, 4, 3])
    np.testing.assert_array_equal(low, [5, 4, 3])
    np.testing.assert_array_equal(high, [7, 4, 3])
    only_gaps = (np.array([1.0]), np.array([math.nan]))
    assert np.isnan(_mean_course([only_gaps])[1]).all()
