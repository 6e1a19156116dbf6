"""Plots of a sweep with the spread over seeds: the metric against a field, and the losses by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gptjax.display.figures import STYLE, save_figure
from gptjax.sweeping.algebra import short_name
from gptjax.sweeping.gather import Group, best_first
from gptjax.training.records.plots import compare_runs, in_words, legend_beside, note_below

MOST_CURVES = 8
MOST_TICKS = 12
LOG_RATIO = 3.0  # the axis is logarithmic if largest / smallest value is above this


def draw(groups: Sequence[Group], metric: str, x: str, folder: Path, higher_is_better: bool = False) -> list[Path]:
    """Plots the finished runs into `folder` and returns the paths of the files.

    x: the field on the horizontal axis; '': only the losses by step are plotted.
    """
    found = [group for group in groups if any(map(math.isfinite, group.values))]
    if not found:
        return []
    paths = [
        compare_runs(
            {
                group.name: [run.workdir for run in group.finished]
                for group in best_first(found, higher_is_better)[:MOST_CURVES]
            },
            folder / "loss_by_step.png",
            metric,
        )
    ]
    if any(x in group.settings and math.isfinite(group.mean) for group in found):
        path = folder / f"{metric.replace('/', '_')}_by_{short_name(x)}.png"
        paths.append(along(found, metric, x, path, higher_is_better))
    return paths


def along(groups: Sequence[Group], metric: str, x: str, path: Path, higher_is_better: bool = False) -> Path:
    """Plots the metric's mean against field `x`, with one line per combination of the other fields. Bars reach from the
    lowest to the highest seed, and a ring marks each line's best value."""
    lines: dict[str, list[Group]] = {}
    for group in groups:
        others = [f"{short_name(field)} {value}" for field, value in group.settings.items() if field != x]
        if x in group.settings:
            lines.setdefault(", ".join(others), []).append(group)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        colors = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(lines)))
        for color, (label, members) in zip(colors, lines.items()):
            members = sorted(members, key=lambda group: group.settings[x])
            places = np.array([group.settings[x] for group in members], float)
            means = np.array([group.mean if math.isfinite(group.mean) else math.nan for group in members])
            reach = np.abs([[min(g.values) - g.mean, max(g.values) - g.mean] for g in members]).T
            axes.errorbar(places, means, reach, fmt="o-", color=color, markersize=4, capsize=3, label=label or None)
            if np.isfinite(means).any():
                best = int(np.nanargmax(means) if higher_is_better else np.nanargmin(means))
                axes.plot(places[best], means[best], "o", color=color, markersize=11, fillstyle="none")
        values = [group.settings[x] for members in lines.values() for group in members]
        if min(values) > 0 and max(values) / min(values) > LOG_RATIO:
            axes.set_xscale("log")
        if len(set(values)) <= MOST_TICKS:
            axes.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))])
            axes.minorticks_off()
        axes.set_ylim(*_limits(groups, higher_is_better))
        name = short_name(x).replace("_", " ")
        axes.set_xlabel(name)
        axes.set_ylabel(in_words(metric))
        title = f"{in_words(metric).partition(' (')[0]} by {name}"
        axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
        several = any(len(group.values) > 1 for group in groups)
        note_below(figure, ("mean over seeds; bars: lowest to highest; " if several else "") + "ring: best value")
        if any(lines):
            legend_beside(figure, axes)
        return save_figure(figure, path)


def _limits(groups: Sequence[Group], higher_is_better: bool) -> tuple[float, float]:
    """Returns limits that include all bars, except of groups that diverged: those whose mean is worse than the median
    by more than twice the median's distance to the best."""
    finite = [group for group in groups if math.isfinite(group.mean)]
    costs = [-group.mean if higher_is_better else group.mean for group in finite]
    median = float(np.median(costs))
    most = median + 2 * (median - min(costs)) + 1e-9
    values = [value for group, cost in zip(finite, costs) if cost <= most for value in group.values]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05 * abs(high)
    return low - margin, high + margin
