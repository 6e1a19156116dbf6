"""Compares evaluated runs: scores, paired differences and their p-values, as a table and a plot.

Runs that answered the same items are compared item by item, which finds smaller differences than the standard errors of
the two scores suggest. The p-value is that of McNemar's exact test if all values are 0 or 1, of the paired t-test for
other values, of the normal distribution if members of unequal size have equal weight, and of the paired bootstrap of
`sacrebleu` for BLEU and chrF. All p-values are two-sided and for a single comparison: among many tasks, some are small
by chance.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from rich.table import Table

from gptjax.errors import ConfigError
from gptjax.evaluation.results import FILE, FOLDER, read_results, score_text, shown_metrics, shows_guessing
from gptjax.evaluation.tasks.kinds import CORPUS_METRICS
from gptjax.evaluation.tasks.metrics import METRICS, columns_of, item_value, sacrebleu_metric
from gptjax.evaluation.tasks.records import read as read_records
from gptjax.evaluation.tasks.run import ITEMS

UNLIKE = "≠"


@dataclass(frozen=True)
class Evaluated:
    """The results of one run's checkpoint."""

    name: str
    folder: Path
    results: dict[str, Any]

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        return self.results.get("tasks", {})

    def records(self, task: str) -> dict[str, dict[str, Any]]:
        path = self.folder / ITEMS / f"{task}.jsonl"
        return read_records(path)[1] if path.exists() else {}


@dataclass(frozen=True)
class Difference:
    """The difference of two runs in one metric of a task: the second minus the first.

    Attributes:
      value: the difference.
      p: its p-value; NaN if it has none.
      unlike: why the two cannot be compared; "" if they can.
    """

    value: float = math.nan
    standard_error: float = math.nan
    p: float = math.nan
    unlike: str = ""


def compare_runs(folders: Sequence[Path], console: Any, plot: Path | None = None) -> None:
    """Prints a table of evaluated runs, each compared with the first, and draws a plot.

    folders: folders of evaluations, or of runs, whose newest evaluation is used.

    Raises:
      ConfigError: a folder has no results, or no task has results in all folders.
    """
    runs = read_runs(folders)
    tasks = [task for task in runs[0].tasks if all(task in run.tasks for run in runs[1:])]
    if not tasks:
        raise ConfigError(f"no task was evaluated in all of {', '.join(run.name for run in runs)}")
    metrics = [(task, metric) for task in tasks for metric in shown_metrics(runs[0].tasks[task])]
    found = {
        (task, metric, run.name): difference(runs[0], run, task, metric) for task, metric in metrics for run in runs[1:]
    }
    console.print(comparison_table(runs, metrics, found))
    for (task, metric, name), one in found.items():
        if one.unlike and metric == runs[0].tasks[task]["metric"]:
            console.print(
                f"{UNLIKE} {task}: {name} cannot be compared with {runs[0].name}: {one.unlike}", soft_wrap=True
            )
    for run in runs:
        if others := [task for task in run.tasks if task not in tasks]:
            console.print(f"not in all runs: {', '.join(others)} of {run.name}", soft_wrap=True)
    if plot:
        console.print(f"plot: {draw(runs, tasks, plot)}", soft_wrap=True)


def read_runs(folders: Sequence[Path]) -> list[Evaluated]:
    """Raises ConfigError if a folder has no results, or fewer than two are given."""
    if len(folders) < 2:
        raise ConfigError("two or more runs are needed for a comparison: evaluate compare RUN RUN …")
    places = [_newest(folder) for folder in folders]
    common = Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
    names = [str(folder.absolute().relative_to(common)) for folder in folders]
    return [Evaluated(name, place, read_results(place / FILE)) for name, place in zip(names, places)]


def _newest(folder: Path) -> Path:
    """The newest results in a run's folder: those of the highest step; among these, results of an average come
    first."""
    if (folder / FILE).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"{FOLDER}/*/{FILE}"))
    if not found:
        raise ConfigError(
            f"{folder}: has no results; python -m gptjax.evaluate --workdir={folder} --tasks=… makes some"
        )
    return found[-1]


def difference(first: Evaluated, second: Evaluated, task: str, metric: str) -> Difference:
    """The difference between the second and the first run in a metric of a task, over the same items.

    For a perplexity, it is the difference of the logarithms, in nats per continuation.
    """
    ours, theirs = first.tasks[task], second.tasks[task]
    if unlike := _unlike(ours, theirs):
        return Difference(unlike=unlike)
    a, b = first.records(task), second.records(task)
    if len(a.keys() & b.keys()) < ours["items"]:
        return Difference(unlike="the records of items are missing")
    items = [item for item in a if item in b]
    if metric in CORPUS_METRICS:
        return _paired_bootstrap(metric, [a[item] for item in items], [b[item] for item in items])
    if metric == "macro_f1":
        return Difference(theirs["scores"][metric]["value"] - ours["scores"][metric]["value"])
    values = np.array([[item_value(of[item], metric) for of in (a, b)] for item in items], np.float64)
    by_member = ours.get("average") == "members"
    return paired(values[:, 0], values[:, 1], _weights(a, items) if by_member else None)


def _weights(records: Mapping[str, Mapping[str, Any]], items: Sequence[str]) -> np.ndarray:
    """The weight of each item in a mean of members' means."""
    members = [records[item].get("member", "") for item in items]
    sizes = Counter(members)
    return np.array([1 / (len(sizes) * sizes[member]) for member in members])


def _unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Why two results do not belong to the same questions; '' if they do."""
    if list(ours["scores"]) != list(theirs["scores"]):
        return f"metrics {', '.join(ours['scores'])} and {', '.join(theirs['scores'])}"
    for key, words in (("few_shot", "few-shot examples"), ("items", "items")):
        if ours[key] != theirs[key]:
            return f"{ours[key]:,} and {theirs[key]:,} {words}"
    for key, words in (("file", "data files"), ("prompts", "prompts")):
        if ours["hashes"][key] != theirs["hashes"][key]:
            return f"their {words} differ"
    return ""


def paired(a: np.ndarray, b: np.ndarray, weights: np.ndarray | None = None) -> Difference:
    """The mean of b − a over items, its standard error, and its p-value.

    weights: the weights of the items, which sum to 1; None: equal weights. With unequal weights, the p-value is that of
      the normal distribution.
    """
    differences = b - a
    if weights is not None and np.ptp(weights) > 1e-12:
        mean = float(weights @ differences)
        error = math.sqrt(float(np.square(weights) @ np.square(differences - mean)))
        return Difference(mean, error, 2 * float(scipy.stats.norm.sf(abs(mean) / error)) if error else 1.0)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(a)) if len(a) > 1 else math.nan
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        won, lost = int((differences > 0).sum()), int((differences < 0).sum())
        p = float(scipy.stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    elif not differences.any():
        p = 1.0
    else:
        p = float(scipy.stats.ttest_rel(b, a).pvalue) if len(a) > 1 else math.nan
    return Difference(mean, error, p)


def _paired_bootstrap(metric: str, a: Sequence[Mapping], b: Sequence[Mapping]) -> Difference:
    from sacrebleu.significance import PairedTest  # installed by the extra `eval`

    references: Any = columns_of([record["references"] for record in a])
    test = PairedTest(
        [("first", [record["text"] for record in a]), ("second", [record["text"] for record in b])],
        {metric: sacrebleu_metric(metric)},
        references,
        test_type="bs",
    )
    scores: Any = test()[1]  # 'System' → names, and the metric's name → results
    first, second = next(found for name, found in scores.items() if name != "System")
    return Difference(float(second.score - first.score), math.nan, float(second.p_value))


def comparison_table(
    runs: Sequence[Evaluated], metrics: Sequence[tuple[str, str]], found: Mapping[tuple, Difference]
) -> Table:
    """A row per task and metric, and a column per run with its score and, below it, the difference from the first run
    and its p-value."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", overflow="fold")
    table.add_column("metric")
    for run in runs:
        table.add_column(run.name, justify="right", overflow="fold")
    for task, metric in metrics:
        cells = []
        for run in runs:
            text = score_text(run.tasks[task]["scores"].get(metric), metric)
            one = found.get((task, metric, run.name))
            cells.append(text if one is None else f"{text}\n{difference_text(one, metric)}")
        first = metric == runs[0].tasks[task]["metric"]
        table.add_row(task if first else "", METRICS[metric].words, *cells)
    return table


def difference_text(one: Difference, metric: str) -> str:
    """'+1.23 ± 0.40, p 0.002', or ≠ if the two cannot be compared."""
    if one.unlike:
        return UNLIKE
    scale = METRICS[metric].scale
    error = f" ± {scale * one.standard_error:.2g}" if math.isfinite(one.standard_error) else ""
    p = f", p {one.p:.2g}" if math.isfinite(one.p) else ""
    unit = " nats" if metric == "perplexity" else ""
    return f"{scale * one.value:+.3g}{error}{unit}{p}"


def draw(runs: Sequence[Evaluated], tasks: Sequence[str], path: Path) -> Path:
    """Draws a panel per task: each run's score with two standard errors to each side, and the score of guessing."""
    import matplotlib
    from matplotlib.figure import Figure

    from gptjax.training.plots import STYLE, save_figure

    columns = min(len(tasks), 4)
    rows = math.ceil(len(tasks) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * columns, 0.9 + rows * (1.0 + 0.28 * len(runs))), dpi=130, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        colors = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(runs)))
        for task, axes in zip(tasks, panels.flat):
            first = runs[0].tasks[task]
            how = METRICS[first["metric"]]
            for place, (run, color) in enumerate(zip(runs, colors)):
                score = run.tasks[task]["scores"].get(first["metric"])
                if score and score["value"] is not None:
                    reach = 2 * how.scale * (score["standard_error"] or 0)
                    axes.errorbar(how.scale * score["value"], place, xerr=reach, fmt="o", color=color, capsize=3)
            if shows_guessing(first):
                axes.axvline(how.scale * first["baseline"], color="#9aa0a6", linestyle=":")
            axes.set_yticks(range(len(runs)), [run.name for run in runs] if axes in panels[:, 0] else [""] * len(runs))
            axes.set_ylim(len(runs) - 0.5, -0.5)
            axes.set_title(task, loc="left", fontsize=9, fontweight="bold")
            axes.set_xlabel(how.words + (f" ({how.unit})" if how.unit else ""), fontsize=8)
        for axes in list(panels.flat)[len(tasks) :]:
            axes.set_axis_off()
        return save_figure(figure, path)
