"""The results of a sweep: one row per run (results.csv), and one row per group of seeds with spread and p-value."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # imports scipy.stats, which takes long, when it is first used
from rich.table import Table

from gptjax import config as configs
from gptjax.display.formatting import count_text, counted, duration_text
from gptjax.evaluation.scores import BITS_PER_BYTE, LOSS, SET
from gptjax.files import write_aside
from gptjax.sweeping.algebra import SEED, short_name
from gptjax.sweeping.predict import Forecast, Size
from gptjax.sweeping.runs import State, Status, SweepRun
from gptjax.training.records import history
from gptjax.training.records.writers import read_metrics

METRICS = ("train/loss", LOSS.name, BITS_PER_BYTE.name, "tokens_per_second", "elapsed_seconds")


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed and were measured on the same data.

    Attributes:
      settings: the settings of their points, without the seed.
      finished: the runs that have finished.
      values: the metric of each finished run.
      measured_on: identifies the data (see the function `measured_on`); only values on equal data are comparable.
    """

    name: str
    settings: Mapping[str, Any]
    runs: tuple[SweepRun, ...]
    finished: tuple[SweepRun, ...]
    values: tuple[float, ...]
    measured_on: str = ""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """The sample standard deviation; NaN for fewer than two values."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan


def swept_fields(runs: Sequence[SweepRun]) -> list[str]:
    """Returns every field that a point of the sweep sets, in order."""
    return list(dict.fromkeys(field for run in runs for field in run.point.settings))


def measured_on(run: SweepRun, status: Status, metric: str) -> str:
    """Identifies the data on which a run's metric was measured, by twelve hexadecimal digits; '' if that is unknown.

    For a validation metric these are the windows that its row names, for a training metric the data of the last start.
    """
    if metric.startswith("validation/"):
        return next((row.get(SET, "") for row in reversed(status.rows) if row.get(metric) is not None), "")
    path = run.workdir / history.FILE_NAME
    if metric.startswith("train/") and path.exists():
        return next((row.get("data", "") for row in reversed(read_metrics(path))), "")
    return ""


def by_data(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Returns data → the groups that were measured on it, which can be compared. Groups without a value join the first
    data."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        if group.values:
            found.setdefault(group.measured_on, []).append(group)
    found.setdefault(next(iter(found), ""), []).extend(group for group in groups if not group.values)
    return found


def write_results(
    path: Path,
    runs: Sequence[SweepRun],
    statuses: Mapping[str, Status],
    sizes: Mapping[str, Size],
    metric: str,
    higher_is_better: bool = False,
) -> None:
    """Writes one row per run: name, state, swept settings, size, last value of each metric, and the best value of the
    compared metric with the data that it was measured on."""
    fields = swept_fields(runs)
    metrics = list(dict.fromkeys((*METRICS, metric)))
    head = ["run", "state", *fields, "parameters", "tokens", "flops", "step", *metrics]
    head += [f"best {metric}", "measured on", "config"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for run in runs:
        status, size = statuses[run.name], sizes[run.name]
        settings = [run.point.settings.get(field, configs.get(run.config, field)) for field in fields]
        data = measured_on(run, status, metric)
        scored = [row for row in status.rows if row.get(metric) is not None]
        scores = [row[metric] for row in scored if row.get(SET, data) == data or not metric.startswith("validation/")]
        figures = [status.last(name) for name in metrics]
        cost = [size.parameters, size.tokens, f"{size.flops:.4g}"]
        best = (max if higher_is_better else min)(scores, default=None)
        writer.writerow([run.name, status.state, *settings, *cost, status.step, *figures, best, data, _hash_of(run)])
    with write_aside(path) as file:
        file.write(text.getvalue().encode())


def _hash_of(run: SweepRun) -> str:
    """Returns the hash of the config that the run was trained with, as its console shows it; '' before its start."""
    path = run.workdir / "config.json"
    return configs.hash_of(configs.from_json(path.read_bytes(), str(path))) if path.exists() else ""


def group_by_seed(runs: Sequence[SweepRun], statuses: Mapping[str, Status], metric: str) -> list[Group]:
    """Groups runs that differ only in their seed and were measured on the same data, in the order of the sweep."""

    def finished(run: SweepRun) -> bool:
        return statuses[run.name].state == State.FINISHED

    members: dict[tuple[str, ...], list[SweepRun]] = {}
    for run in runs:
        seed_label = f"{SEED}={run.point.settings.get(SEED)}"
        members.setdefault(tuple(label for label in run.point.labels if label != seed_label), []).append(run)
    groups = []
    for labels, same in members.items():
        settings = {field: value for field, value in same[0].point.settings.items() if field != SEED}
        on = {run.name: measured_on(run, statuses[run.name], metric) for run in same if finished(run)}
        kinds = list(dict.fromkeys(on.values())) or [""]
        for data in kinds:  # runs that did not finish join the first data
            alike = tuple(run for run in same if on.get(run.name, kinds[0]) == data)
            done = tuple(run for run in alike if finished(run))
            values = tuple(v for run in done if (v := statuses[run.name].last(metric)) is not None)
            groups.append(Group(",".join(labels) or "base", settings, alike, done, values, data))
    return groups


def p_value(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the two-sided p of Welch's t-test (unequal variances) for equal means; NaN with fewer than two values."""
    if min(len(a), len(b)) < 2:
        return math.nan
    return float(scipy.stats.ttest_ind(a, b, equal_var=False).pvalue)


def best_first(groups: Sequence[Group], higher_is_better: bool = False) -> list[Group]:
    """Sorts groups by their means, the best first; groups without a value come last."""
    sign = -1 if higher_is_better else 1
    return sorted(groups, key=lambda group: (math.isnan(group.mean), sign * group.mean))


def results_table(groups: Sequence[Group], metric: str, higher_is_better: bool = False) -> Table:
    """Returns a table of the groups from best to worst: mean, standard deviation, distance to the best, and p-value."""
    kinds = by_data(groups)
    table = Table(title=f"{metric}, mean over seeds; p: Welch's t-test against the best", title_justify="left")
    if len(kinds) > 1:
        listed = ", ".join(data or "not recorded" for data in kinds)
        table.caption = f"measured on different data ({listed}): each is compared only with the best on the same data"
    table.add_column("settings", overflow="fold")
    for head in ("finished", "mean", "± sd", "to best", "p"):
        table.add_column(head, justify="right", no_wrap=True)
    for alike in kinds.values():
        ranked = best_first(alike, higher_is_better)
        best = ranked[0]
        for group in ranked:
            distance = group.mean - best.mean
            p = p_value(group.values, best.values) if group is not best else math.nan
            table.add_row(
                group.name + (f" on {group.measured_on or '?'}" if len(kinds) > 1 else ""),
                f"{len(group.values)}/{len(group.runs)}",
                _number(group.mean, ".4f"),
                _number(group.deviation, ".4f"),
                _number(distance, "+.4f") if group is not best else "–",
                _number(p, ".2g"),
            )
        table.add_section()
    return table


def plan_table(
    runs: Sequence[SweepRun],
    statuses: Mapping[str, Status],
    sizes: Mapping[str, Size],
    forecast: Forecast,
    jobs: int,
    cost: Callable[[float], str] | None = None,
) -> Table:
    """Returns a table of the runs with state, size and predicted time.

    The last rows sum up the unfinished work and, if a part is done, all of it. Their times are for `jobs` runs at a
    time. cost: from seconds of one run to its price as text; None: there is no column of prices.
    """
    table = Table(title=f"{counted(len(runs), 'run')} of {runs[0].base}: {_fields_text(runs)}", title_justify="left")
    table.add_column("run", overflow="fold")
    for head in ("state", "steps", "parameters", "tokens", "FLOPs", "time", *(["price"] if cost else [])):
        table.add_column(head, justify="right", no_wrap=True)

    def priced(seconds: float | None) -> list[str]:
        return [] if cost is None else ["–" if seconds is None else cost(seconds)]

    for run in runs:
        status, size, seconds = statuses[run.name], sizes[run.name], forecast.seconds(run)
        part = f" {100 * status.step // run.total_steps}%" if status.state == State.PARTLY_DONE else ""
        table.add_row(
            run.name,
            f"{status.state}{part}",
            f"{run.total_steps:,}",
            count_text(size.parameters),
            count_text(size.tokens),
            f"{size.flops:.2e}",
            duration_text(seconds),
            *priced(seconds),
        )

    def add_sum(name: str, shares: Mapping[str, float]) -> None:
        """shares: fraction of each run that counts."""
        counting = [run for run in runs if shares.get(run.name)]
        tokens, flops = (
            sum(shares[run.name] * getattr(sizes[run.name], of) for run in counting) for of in ("tokens", "flops")
        )
        each = [(shares[run.name], forecast.seconds(run)) for run in counting]
        known = [share * seconds for share, seconds in each if seconds is not None]
        total = sum(known) if len(known) == len(each) else None
        time = duration_text(None if total is None else total / jobs)
        table.add_row(name, "", "", "", count_text(tokens), f"{flops:.2e}", time, *priced(total))

    left = [run for run in runs if statuses[run.name].state != State.FINISHED]
    shares = {run.name: 1 - statuses[run.name].step / run.total_steps for run in left}
    table.add_section()
    add_sum(f"{len(left)} left", shares)
    if any(shares.get(run.name) != 1 for run in runs):
        add_sum("in all", {run.name: 1.0 for run in runs})
    return table


def _fields_text(runs: Sequence[SweepRun]) -> str:
    return ", ".join(short_name(field) for field in swept_fields(runs)) or "no field is varied"


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
