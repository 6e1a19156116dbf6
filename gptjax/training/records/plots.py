"""Draws loss curves of finished or running runs from their metrics.jsonl to PNG files (no display needed)."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptjax.display.figures import STYLE, save_figure
from gptjax.training.objectives import OBJECTIVES
from gptjax.training.records.writers import FILE_NAME, read_metrics

TRAIN, VALIDATION = "#3b6fb6", "#d1495b"
X_AXES = {"step": "optimizer steps", "tokens": "tokens trained on"}
RATES = {"learning_rate": ("AdamW", "#8a8f98"), "muon_learning_rate": ("Muon", "#d08c28")}
WORDS = {  # labels of metrics, with their units
    "train/loss": "training loss (nats per token)",
    **{score.name: score.words for objective in reversed(OBJECTIVES.values()) for score in objective.scores},
    "train/gradient_norm": "gradient norm",
    "learning_rate": "learning rate",
    "muon_learning_rate": "learning rate (Muon)",
    "tokens_per_second": "tokens per second",
    "step_milliseconds": "milliseconds per step",
    "elapsed_seconds": "seconds since the start",
    "train/accuracy": "training accuracy",
    "train/margin": "margin of the rewards in training",
    "train/reward": "reward in training",
    "train/written_tokens": "tokens per text written in training",
    "train/used_texts": "share of texts whose group has different rewards",
    "train/clipped": "share of tokens whose gain is limited",
    "train/surprise": "the model's surprise at its texts (nats per token)",
    "train/teacher_loss": "the teacher's loss on the text (nats per token)",
    "train/divergence": "divergence from the other model (nats per token)",
}
ROUTER_SHARES = {"expert_drops": "choices dropped", "experts_unused": "experts that no token chose"}
MOST_LAYERS = 8  # layers whose experts are drawn
AT_ONCE = 4096  # windows whose medians are computed together
FEW_POINTS = 20  # up to this many points are drawn without smoothing


def plot_run(workdir: str | os.PathLike) -> list[Path]:
    """Draws training loss, validation loss and learning rates, by step and by tokens, into `workdir`/plots.

    Returns the paths written; an empty list if there is nothing to draw yet. Missing and non-finite values leave gaps.
    """
    workdir = Path(workdir)
    rows = _rows(workdir)
    paths = []
    for x_name, x_label in X_AXES.items():
        train = series_of(rows, x_name, "train/loss")
        validation = series_of(rows, x_name, "validation/loss")
        if not np.isfinite(train[1]).any() and not np.isfinite(validation[1]).any():
            continue
        rates = {name: series for name in RATES if len((series := series_of(rows, x_name, name))[0])}
        with matplotlib.rc_context(STYLE):
            figure, axes = _new_figure(
                x_label, f"{workdir.resolve().name}: loss".replace("$", "\\$"), below=bool(rates)
            )
            axes.set_ylabel("loss (nats per token)")
            smoothing = _draw_loss(axes, *train, TRAIN, "training")
            if smoothing:
                axes.lines[-1].set_label(f"training, {smoothing}")
            if len(validation[0]):
                axes.plot(*validation, "o-", color=VALIDATION, markersize=4, linewidth=1.2, label="validation")
                _note_best(axes, *validation)
            _fit_to_losses(axes, train[1], validation[1])
            _legend_above(axes)
            if rates:
                _draw_rates(figure.axes[1], rates)
            paths.append(save_figure(figure, workdir / "plots" / f"loss_by_{x_name}.png"))
    return (
        paths
        + _plot_tasks(workdir, rows)
        + _plot_load(workdir, rows)
        + _plot_routers(workdir, rows)
        + _plot_preferences(workdir, rows)
    )


def _plot_tasks(workdir: Path, rows: list[dict]) -> list[Path]:
    """A figure for each metric of each task that is evaluated during training: plots/task_NAME_METRIC.png."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("tasks/"))
    paths = []
    for name in names:
        series = series_of(rows, "step", name)
        with matplotlib.rc_context(STYLE):
            figure, axes = _new_figure(
                X_AXES["step"], f"{workdir.resolve().name}: {in_words(name)}".replace("$", "\\$")
            )
            axes.plot(*series, "o-", color=VALIDATION, markersize=4, linewidth=1.2)
            axes.set_ylabel(in_words(name).replace("$", "\\$"))
            file = "_".join(name.split("/")[1:])
            paths.append(save_figure(figure, workdir / "plots" / f"task_{file}.png"))
    return paths


def _plot_preferences(workdir: Path, rows: list[dict]) -> list[Path]:
    """The margins of rewards and the rewards of both answers, of a run that learns preferences:
    plots/preferences.png."""
    margin, chosen, rejected = (
        series_of(rows, "step", f"train/{name}") for name in ("margin", "chosen_reward", "rejected_reward")
    )
    if not len(margin[0]):
        return []
    with matplotlib.rc_context(STYLE):
        figure, axes = _new_figure(X_AXES["step"], f"{workdir.resolve().name}: rewards".replace("$", "\\$"), below=True)
        axes.plot(*margin, color=TRAIN, linewidth=1.3, label="training")
        axes.plot(
            *series_of(rows, "step", "validation/margin"), "o-", color=VALIDATION, markersize=4, label="validation"
        )
        axes.set_ylabel("margin of the rewards")
        _legend_above(axes)
        for series, label, color in ((chosen, "chosen", TRAIN), (rejected, "rejected", VALIDATION)):
            figure.axes[1].plot(*series, color=color, linewidth=1.2, label=label)
        figure.axes[1].set_ylabel("reward in training")
        figure.axes[1].legend(fontsize=8)
        return [save_figure(figure, workdir / "plots" / "preferences.png")]


def _plot_load(workdir: Path, rows: list[dict]) -> list[Path]:
    """For a mixture of experts, the number of tokens per expert and layer: plots/expert_load.png."""
    rows = [row for row in rows if row.get("train/expert_load")]
    if not rows:
        return []
    load_SLE = np.array([row["train/expert_load"] for row in rows], np.float64)
    layers = np.unique(np.linspace(0, load_SLE.shape[1] - 1, MOST_LAYERS).round().astype(int))
    steps = np.array([row["step"] for row in rows], np.float64)
    ends = np.concatenate([[2 * steps[0] - steps[min(1, len(steps) - 1)]], steps])  # each load is drawn up to its step
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(8, 1.2 + 1.1 * len(layers)), dpi=150, layout="constrained")
        panels = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
        for axes, layer in zip(panels, layers):
            edges = np.arange(load_SLE.shape[2] + 1)
            image = axes.pcolormesh(ends, edges, load_SLE[:, layer].T, cmap="viridis", vmin=0, vmax=2)
            axes.set_ylabel(f"router {layer + 1}")
            axes.set_yticks([])
        panels[-1].set_xlabel(X_AXES["step"])
        panels[0].set_title(
            f"{workdir.resolve().name}: load of the experts".replace("$", "\\$"),
            loc="left",
            fontweight="bold",
            fontsize=11,
        )
        figure.colorbar(image, ax=panels, extend="max", label="multiple of the mean", aspect=40)
        note_below(figure, "one row of each panel for each expert")
        return [save_figure(figure, workdir / "plots" / "expert_load.png")]


def _plot_routers(workdir: Path, rows: list[dict]) -> list[Path]:
    """Entropy and drops of the routers of a mixture of experts: plots/routers.png."""
    entropy = series_of(rows, "step", "train/router_entropy")
    if not len(entropy[0]):
        return []
    shares = {label: series_of(rows, "step", f"train/{name}") for name, label in ROUTER_SHARES.items()}
    with matplotlib.rc_context(STYLE):
        figure, axes = _new_figure(X_AXES["step"], f"{workdir.resolve().name}: routers".replace("$", "\\$"), below=True)
        axes.plot(*entropy, color=TRAIN, linewidth=1.3)
        axes.set_ylabel("entropy of a token's router (nats)")
        for (label, series), color in zip(shares.items(), (VALIDATION, TRAIN)):
            if len(series[0]):
                figure.axes[1].plot(*series, color=color, linewidth=1.3, label=label)
        figure.axes[1].set_ylabel("share")
        figure.axes[1].set_ylim(bottom=0)
        _legend_above(figure.axes[1])
        return [save_figure(figure, workdir / "plots" / "routers.png")]


def compare_runs(
    groups: Mapping[str, Sequence[str | os.PathLike]],
    path: str | os.PathLike,
    metric: str = "validation/loss",
    x_name: str = "step",
) -> Path:
    """Draws one metric of several groups of runs into one figure at `path`: label → workdirs.

    A group of several runs is drawn as its mean, with a band from lowest to highest; 'train/loss' is smoothed. Raises
    ValueError if no run has the metric.
    """
    courses = {
        label: _mean_course([series_of(_rows(Path(w)), x_name, metric) for w in runs]) for label, runs in groups.items()
    }
    if not any(np.isfinite(mean).any() for _, mean, _, _ in courses.values()):
        raise ValueError(f"no run has {metric!r} by {x_name}")
    notes = ["line: mean over seeds; band: lowest to highest"] if any(len(runs) > 1 for runs in groups.values()) else []
    with matplotlib.rc_context(STYLE):
        figure, axes = _new_figure(X_AXES[x_name], f"{in_words(metric).partition(' (')[0]} by {X_AXES[x_name]}")
        colors = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(courses)))
        for (label, (x, mean, low, high)), color in zip(courses.items(), colors):
            final = mean[np.isfinite(mean)][-1:]
            label = f"{label}  (last {final[0]:.4g})" if len(final) else f"{label}  (no data)"
            axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
            if metric.startswith("train/"):
                if smoothing := _draw_loss(axes, x, mean, color, label):
                    notes.append(f"strong lines: {smoothing}")
            else:
                axes.plot(x, mean, "o-", color=color, markersize=3, linewidth=1.3, label=label)
        axes.set_ylabel(in_words(metric))
        _fit_to_losses(axes, *(mean for _, mean, _, _ in courses.values()))
        legend_beside(figure, axes)
        note_below(figure, "; ".join(dict.fromkeys(notes)))
        return save_figure(figure, Path(path))


def in_words(metric: str) -> str:
    """'validation/loss' → 'validation loss (nats per token)'."""
    return WORDS.get(metric, metric.replace("/", " ").replace("_", " "))


def legend_beside(figure: Figure, axes: Axes) -> None:
    """A legend to the right of the axes, where it hides no curve; long labels wrap."""
    handles, labels = axes.get_legend_handles_labels()
    literal = [label.replace("$", "\\$") for label in labels]  # matplotlib would read $ as mathematics
    wrapped = ["\n".join(textwrap.wrap(label, 34, break_on_hyphens=False)) for label in literal]
    figure.legend(handles, wrapped, loc="outside right upper", fontsize="small")


def note_below(figure: Figure, text: str) -> None:
    """Adds an explanation in small type below the figure."""
    if text:
        figure.supxlabel(text, fontsize="small", color="#4a4f55")


def _legend_above(axes: Axes) -> None:
    """A one-line legend between title and axes."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2, fontsize="small")


def _mean_course(series: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """(x, mean, lowest, highest) for each x of any run, over the runs that have this x."""
    places = np.unique(np.concatenate([x for x, _ in series]))
    values = np.full((len(series), len(places)), np.nan)
    for row, (x, y) in zip(values, series):
        row[np.searchsorted(places, x)] = y
    present = np.isfinite(values)
    mean, low, high = np.full((3, len(places)), np.nan)
    covered = present.any(axis=0)
    columns = values[:, covered]
    mean[covered], low[covered], high[covered] = (f(columns, axis=0) for f in (np.nanmean, np.nanmin, np.nanmax))
    return places, mean, low, high


def smooth(y: np.ndarray, reach: int) -> np.ndarray:
    """Running median over `reach` points to each side; NaN at the ends, where the window is incomplete, and at gaps.

    A median neither lags behind a falling loss nor spreads a spike over neighbouring points.
    """
    result = np.full(len(y), np.nan)
    finite = np.flatnonzero(np.isfinite(y))
    values, length = y[finite], 2 * reach + 1
    if len(values) < length:
        return result
    windows = np.lib.stride_tricks.sliding_window_view(values, length)
    for start in range(0, len(windows), AT_ONCE):  # a block at a time, since a median copies its windows
        block = windows[start : start + AT_ONCE]
        result[finite[start + reach : start + reach + len(block)]] = np.median(block, axis=1)
    return result


def _rows(workdir: Path) -> list[dict]:
    path = workdir / FILE_NAME
    return read_metrics(path) if path.exists() else []


def series_of(rows: list[dict], x_name: str, y_name: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the rows that have both; values that are not finite become NaN, which matplotlib leaves out."""
    pairs = [(row[x_name], row[y_name]) for row in rows if row.get(x_name) is not None and row.get(y_name) is not None]
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T
    return x, np.where(np.isfinite(y), y, np.nan)


def _new_figure(x_label: str, title: str, below: bool = False) -> tuple[Figure, Axes]:
    """A figure with axes; `below` adds a lower panel with the same x axis."""
    figure = Figure(figsize=(8, 5.2 if below else 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(2 if below else 1, sharex=True, squeeze=False, height_ratios=(4, 1) if below else None)[
        :, 0
    ]
    panels[-1].set_xlabel(x_label)
    panels[-1].xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    panels[0].set_title(title, loc="left", fontweight="bold", fontsize=11)
    return figure, panels[0]


def _draw_loss(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str) -> str:
    """Draws logged values in a pale and their smoothed curve in a strong colour; few points are drawn unsmoothed, with
    markers.

    Returns a description of the smoothing; '' if there is none.
    """
    if np.isfinite(y).sum() <= FEW_POINTS:
        axes.plot(x, y, "o-", color=color, markersize=3, linewidth=1.5, label=label)
        return ""
    reach = min(max(len(y) // 60, 2), 50)
    axes.plot(x, y, color=color, alpha=0.35, linewidth=0.8)
    axes.plot(x, smooth(y, reach), color=color, linewidth=1.8, label=label)
    return f"median of {2 * reach + 1} logged values"


def _note_best(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
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


def _draw_rates(axes: Axes, rates: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draws the learning rates; if there are two, each is labelled with the name of its optimizer."""
    for name, (x, y) in rates.items():
        label, color = RATES[name]
        axes.plot(x, y, color=color, linewidth=1.3, label=label)
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes.yaxis.get_offset_text().set_fontsize("small")
    if len(rates) > 1:
        _legend_above(axes)


def _fit_to_losses(axes: Axes, *losses: np.ndarray) -> None:
    """Fits the axis to all but the highest 1 %, so that a spike or the first steps do not flatten the rest."""
    values = np.concatenate(losses)
    values = values[np.isfinite(values)]
    low, high = values.min(), np.percentile(values, 99)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.1
    axes.set_ylim(low - 1.5 * margin, high + 1.5 * margin)
