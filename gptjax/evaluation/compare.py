"""Compares evaluated runs: scores, paired differences and their p-values, as a table and a plot.

Differences over the same items are computed in paired.py. The p-value of BLEU and chrF is that of the paired bootstrap
of `sacrebleu`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from gptjax.errors import ConfigError
from gptjax.evaluation.harness.compare import HarnessTasks
from gptjax.evaluation.paired import MISSING, Difference, Evaluated, Section, paired, unlike_counts, weights_of
from gptjax.evaluation.results import FILE, FOLDER, read_results, score_text, shown_metrics, shows_guessing
from gptjax.evaluation.tasks.kinds import CORPUS_METRICS
from gptjax.evaluation.tasks.metrics import (
    METRICS,
    Metric,
    columns_of,
    item_value,
    missing_library,
    sacrebleu_metric,
)
from gptjax.evaluation.tasks.records import kept_aside
from gptjax.evaluation.tasks.records import read as read_records
from gptjax.evaluation.tasks.run import ITEMS, made_with_of

UNLIKE = "≠"


class OwnTasks(Section):
    """The tasks that cards describe."""

    name = "tasks"

    def metrics(self, result: Mapping[str, Any]) -> list[str]:
        return shown_metrics(result)

    def how(self, metric: str) -> Metric:
        return METRICS[metric]

    def guessing(self, result: Mapping[str, Any]) -> float | None:
        return result["baseline"] if shows_guessing(result) else None

    def difference(self, first: Evaluated, second: Evaluated, task: str, metric: str) -> Difference:
        """For a perplexity, it is the difference of the logarithms, in nats per continuation."""
        ours, theirs = self.tasks(first)[task], self.tasks(second)[task]
        if unlike := unlike_counts(ours, theirs) or _unlike_hashes(ours, theirs):
            return Difference(unlike=unlike)
        a, b = records_of(first, task), records_of(second, task)
        if len(a.keys() & b.keys()) < ours["items"]:
            return Difference(unlike=MISSING)
        items = [item for item in a if item in b]
        if metric in CORPUS_METRICS:
            return _paired_bootstrap(metric, [a[item] for item in items], [b[item] for item in items])
        if metric == "macro_f1":
            return Difference(theirs["scores"][metric]["value"] - ours["scores"][metric]["value"])
        values = np.array([[item_value(of[item], metric) for of in (a, b)] for item in items], np.float64)
        weights = (
            weights_of([a[item].get("member", "") for item in items]) if ours.get("average") == "members" else None
        )
        return paired(values[:, 0], values[:, 1], weights, unit=" nats" if metric == "perplexity" else "")


def records_of(run: Evaluated, task: str) -> dict[str, dict[str, Any]]:
    """The records that a task's result was computed from, also if a later evaluation, which was stopped before its
    result was written, has begun others; none if they are missing."""
    path, result = run.folder / ITEMS / f"{task}.jsonl", run.results[OwnTasks.name][task]
    hashes = result["hashes"]
    wanted = made_with_of(hashes.get("card"), hashes["file"], result.get("writing", {}), run.results["evaluated"])
    both = map(read_records, (path, kept_aside(path, wanted)))
    return next((found for made_with, found in both if made_with == wanted), {})


def _unlike_hashes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    for key, words in (("file", "data files"), ("prompts", "prompts")):
        if ours["hashes"][key] != theirs["hashes"][key]:
            return f"their {words} differ"
    return ""


def _paired_bootstrap(metric: str, a: Sequence[Mapping], b: Sequence[Mapping]) -> Difference:
    if problem := missing_library([metric]):
        return Difference(unlike=problem)
    from sacrebleu.significance import PairedTest

    references: Any = columns_of([record["references"] for record in a])
    test = PairedTest(
        [("first", [record["text"] for record in a]), ("second", [record["text"] for record in b])],
        {metric: sacrebleu_metric(metric)},
        references,
        test_type="bs",
    )
    scores: Any = test()[1]  # 'System' → names, and the metric's name → a result of each
    first, second = next(found for name, found in scores.items() if name != "System")
    return Difference(float(second.score - first.score), math.nan, float(second.p_value))


SECTIONS: tuple[Section, ...] = (OwnTasks(), HarnessTasks())


@dataclass(frozen=True)
class Compared:
    """A task that all runs have been evaluated on."""

    section: Section
    task: str

    @property
    def title(self) -> str:
        return self.section.title(self.task)

    def result(self, run: Evaluated) -> dict[str, Any]:
        return self.section.tasks(run)[self.task]

    def metrics(self, run: Evaluated) -> list[str]:
        return self.section.metrics(self.result(run))

    def difference(self, first: Evaluated, second: Evaluated, metric: str) -> Difference:
        return self.section.difference(first, second, self.task, metric)


def tasks_of(run: Evaluated) -> list[Compared]:
    found = [Compared(section, task) for section in SECTIONS for task in section.tasks(run)]
    return [task for task in found if task.result(run)["scores"]]  # a group of lm_eval's may have none


def compare_runs(folders: Sequence[Path], console: Any, plot: Path | None = None) -> None:
    """Prints a table of evaluated runs, each compared with the first, and draws a plot.

    folders: folders of evaluations, or of runs, whose newest evaluation is used.

    Raises:
      ConfigError: a folder has no results, or no task has results in all folders.
    """
    runs = read_runs(folders)
    tasks = [task for task in tasks_of(runs[0]) if all(task in tasks_of(run) for run in runs[1:])]
    if not tasks:
        raise ConfigError(f"no task was evaluated in all of {', '.join(run.name for run in runs)}")
    found = {
        (task, metric, run.name): task.difference(runs[0], run, metric)
        for task in tasks
        for metric in task.metrics(runs[0])
        for run in runs[1:]
    }
    console.print(comparison_table(runs, tasks, found))
    for (task, metric, name), one in found.items():
        if one.unlike and metric == task.metrics(runs[0])[0]:
            console.print(
                f"{UNLIKE} {task.title}: {name} cannot be compared with {runs[0].name}: {one.unlike}", soft_wrap=True
            )
    for run in runs:
        if others := [task.title for task in tasks_of(run) if task not in tasks]:
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


def comparison_table(runs: Sequence[Evaluated], tasks: Sequence[Compared], found: Mapping[tuple, Difference]) -> Table:
    """A row per task and metric, and a column per run with its score and, below it, the difference from the first run
    and its p-value."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", overflow="fold")
    table.add_column("metric")
    for run in runs:
        table.add_column(run.name, justify="right", overflow="fold")
    for task in tasks:
        for number, metric in enumerate(task.metrics(runs[0])):
            how, cells = task.section.how(metric), []
            for run in runs:
                text = score_text(task.result(run)["scores"].get(metric), how)
                one = found.get((task, metric, run.name))
                cells.append(text if one is None else f"{text}\n{difference_text(one, how)}")
            table.add_row("" if number else task.title, how.words, *cells)
    return table


def difference_text(one: Difference, how: Metric) -> str:
    """'+1.23 ± 0.40, p 0.002', or ≠ if the two cannot be compared."""
    if one.unlike:
        return UNLIKE
    error = f" ± {how.scale * one.standard_error:.2g}" if math.isfinite(one.standard_error) else ""
    p = f", p {one.p:.2g}" if math.isfinite(one.p) else ""
    return f"{how.scale * one.value:+.3g}{error}{one.unit}{p}"


def draw(runs: Sequence[Evaluated], tasks: Sequence[Compared], path: Path) -> Path:
    """Draws a panel per task: each run's score with two standard errors to each side, and the score of guessing."""
    import matplotlib
    from matplotlib.figure import Figure

    from gptjax.display.figures import STYLE, save_figure

    columns = min(len(tasks), 4)
    rows = math.ceil(len(tasks) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * columns, 0.9 + rows * (1.0 + 0.28 * len(runs))), dpi=130, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        colors = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(runs)))
        for task, axes in zip(tasks, panels.flat):
            metric = task.metrics(runs[0])[0]
            how = task.section.how(metric)
            for place, (run, color) in enumerate(zip(runs, colors)):
                score = task.result(run)["scores"].get(metric)
                if score and isinstance(score["value"], float):
                    reach = 2 * how.scale * (score["standard_error"] or 0)
                    axes.errorbar(how.scale * score["value"], place, xerr=reach, fmt="o", color=color, capsize=3)
            if (guessing := task.section.guessing(task.result(runs[0]))) is not None:
                axes.axvline(how.scale * guessing, color="#9aa0a6", linestyle=":")
            axes.set_yticks(range(len(runs)), [run.name for run in runs] if axes in panels[:, 0] else [""] * len(runs))
            axes.set_ylim(len(runs) - 0.5, -0.5)
            axes.set_title(task.title, loc="left", fontsize=9, fontweight="bold")
            axes.set_xlabel(how.words + (f" ({how.unit})" if how.unit else ""), fontsize=8)
        for axes in list(panels.flat)[len(tasks) :]:
            axes.set_axis_off()
        return save_figure(figure, path)
