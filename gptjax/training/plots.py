"""Loss curves of finished or running runs, drawn from their metrics.jsonl to PNG (no display needed)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gptjax.training.writers import FILE_NAME, read_metrics

TRAIN, VALIDATION, RATE = "#3b6fb6", "#d1495b", "#8a8f98"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": "#9aa0a6",
    "xtick.color": "#4a4f55",
    "ytick.color": "#4a4f55",
    "legend.frameon": False,
}
X_AXES = {"step": "step", "tokens": "tokens"}


def plot_run(workdir: str | os.PathLike) -> list[Path]:
    """Draws training and validation loss and learning rate, by step and by tokens, into `workdir`/plots.

    Returns the paths written; none where there is nothing to draw yet. Missing and non-finite values leave gaps.
    """
    workdir = Path(workdir)
    rows = _rows(workdir)
    paths = []
    for x_name, x_label in X_AXES.items():
        train = _series(rows, x_name, "train/loss")
        validation = _series(rows, x_name, "validation/loss")
        if not np.isfinite(train[1]).any() and not np.isfinite(validation[1]).any():
            continue
        with matplotlib.rc_context(STYLE):
            figure, axes = _new_figure(x_label)
            _draw_loss(axes, *train, TRAIN, "training")
            if len(validation[0]):
                axes.plot(*validation, "o-", color=VALIDATION, markersize=4, linewidth=1.2, label="validation")
                _note_best(axes, *validation)
            _draw_rate(axes, *_series(rows, x_name, "learning_rate"))
            _fit_to_losses(axes, train[1], validation[1])
            axes.legend(loc="upper right")
            axes.set_title(workdir.resolve().name, loc="left", fontweight="bold")
            paths.append(save_figure(figure, workdir / "plots" / f"loss_by_{x_name}.png"))
    return paths


def compare_runs(
    groups: Mapping[str, Sequence[str | os.PathLike]],
    path: str | os.PathLike,
    metric: str = "validation/loss",
    x_name: str = "step",
) -> Path:
    """Draws one metric of several groups of runs into one figure at `path` (PNG): label → workdirs.

    Of several runs in a group the mean is drawn, and a band from the lowest to the highest; 'train/loss' is smoothed.
    Raises ValueError when no run has the metric.
    """
    courses = {
        label: _mean_course([_series(_rows(Path(w)), x_name, metric) for w in runs]) for label, runs in groups.items()
    }
    if not any(np.isfinite(mean).any() for _, mean, _, _ in courses.values()):
        raise ValueError(f"no run has {metric!r} by {x_name}")
    with matplotlib.rc_context(STYLE):
        figure, axes = _new_figure(X_AXES[x_name])
        colors = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(courses)))
        for (label, (x, mean, low, high)), color in zip(courses.items(), colors):
            final = mean[np.isfinite(mean)][-1:]
            label = f"{label}  ({final[0]:.4g})" if len(final) else f"{label}  (no data)"
            axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
            if metric.startswith("train/"):
                _draw_loss(axes, x, mean, color, label)
            else:
                axes.plot(x, mean, "o-", color=color, markersize=3, linewidth=1.3, label=label)
        axes.set_ylabel(metric)
        _fit_to_losses(axes, *(mean for _, mean, _, _ in courses.values()))
        axes.legend(loc="upper right", fontsize="small")
        return save_figure(figure, Path(path))


def _mean_course(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """(x, mean, lowest, highest) of several runs, at each x that any of them has, of those that have it."""
    places = np.unique(np.concatenate([x for x, _ in series]))
    values = np.full((len(series), len(places)), np.nan)
    for row, (x, y) in zip(values, series):
        row[np.searchsorted(places, x)] = y
    there = np.isfinite(values)
    mean, low, high = np.full((3, len(places)), np.nan)
    any_there = there.any(axis=0)
    columns = values[:, any_there]
    mean[any_there], low[any_there], high[any_there] = (f(columns, axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))
    return places, mean, low, high


def smooth(y: np.ndarray, reach: int) -> np.ndarray:
    """Running median over `reach` points to each side, fewer at the ends so that it stays centred; gaps (NaN) stay.

    A median neither lags behind a falling loss nor smears a spike over its neighbours.
    """
    result = np.full(len(y), np.nan)
    finite = np.flatnonzero(np.isfinite(y))
    values, last = y[finite], len(finite) - 1
    for i, place in enumerate(finite):
        side = min(i, last - i, reach)
        result[place] = np.median(values[i - side : i + side + 1])
    return result


def _rows(workdir: Path) -> list[dict]:
    path = workdir / FILE_NAME
    return read_metrics(path) if path.exists() else []


def _series(rows: list[dict], x_name: str, y_name: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the rows that have both; values that are not finite become NaN, which matplotlib leaves out."""
    pairs = [(row[x_name], row[y_name]) for row in rows if row.get(x_name) is not None and row.get(y_name) is not None]
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T
    return x, np.where(np.isfinite(y), y, np.nan)


def _new_figure(x_label: str):
    figure = Figure(figsize=(8, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel("loss (nats a token)")
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    return figure, axes


def _draw_loss(axes, x, y, color, label) -> None:
    """The raw values pale, their smoothed course strong; few points are drawn as they are, with markers."""
    if np.isfinite(y).sum() < 20:
        axes.plot(x, y, "o-", color=color, markersize=3, linewidth=1.5, label=label)
        return
    axes.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
    axes.plot(x, smooth(y, reach=min(max(len(y) // 60, 2), 50)), color=color, linewidth=1.8, label=label)


def _note_best(axes, x, y) -> None:
    if np.isfinite(y).any():
        best = np.nanargmin(y)
        axes.annotate(
            f"{y[best]:.4f}",
            (x[best], y[best]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            color=VALIDATION,
        )


def _draw_rate(axes, x, y) -> None:
    if not len(x):
        return
    twin = axes.twinx()
    twin.plot(x, y, color=RATE, linewidth=1, linestyle=(0, (4, 3)))
    twin.set_ylabel("learning rate", color=RATE)
    twin.set_ylim(bottom=0)
    twin.grid(False)
    twin.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    twin.tick_params(axis="y", colors=RATE)
    axes.set_zorder(twin.get_zorder() + 1)  # the losses are in front
    axes.patch.set_visible(False)


def _fit_to_losses(axes, *losses: np.ndarray) -> None:
    """Room above for all but the worst 1 %: a spike or the first steps must not flatten the rest."""
    values = np.concatenate(losses)
    values = values[np.isfinite(values)]
    low, high = values.min(), np.percentile(values, 99)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.1
    axes.set_ylim(low - 1.5 * margin, high + margin)


def save_figure(figure: Figure, path: Path) -> Path:
    """Written beside and moved, so that a viewer never opens half a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
    return path
