"""The console output of a training run: the table of settings, a live view and the summary. Computes no metrics.

On a terminal, a status line at the bottom is updated and a permanent line is added per logging interval. Elsewhere (a
file, a job's log), only the permanent lines are written. Only the first process prints.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from rich.console import Group
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from gptjax.config import default, flatten
from gptjax.data import Dataset
from gptjax.evaluation.scores import Score
from gptjax.formatting import bytes_text, count_text, counted, duration_text
from gptjax.parallel.mesh import AXES, AbstractDevices
from gptjax.parallel.pipeline import schedule_of
from gptjax.planning import Plan
from gptjax.settings import Settings
from gptjax.terminal import Console, one_line, print_note
from gptjax.training.hardware import Memory, Peak
from gptjax.training.metrics import Throughput
from gptjax.training.objectives.next_token import NextToken
from gptjax.training.optimizer import summarize, treatments_of

LOG_WIDTH = 120  # columns of a log that is not a terminal
HEADER_EVERY = 25  # permanent lines
MOST_COLUMNS, COLUMN_GAP = 3, 2  # of the settings
MOST_VALUE_WIDTH = 28  # of a setting; longer values, such as paths, wrap
MOST_WEIGHTS = 10  # weights of labels that are shown
# Settings that identify a run are shown even at their defaults.
ALWAYS_SHOWN = frozenset(
    {
        *("seed", "model.family", "model.vocab_size", "model.num_layers", "model.width", "model.num_heads"),
        *("model.feedforward", "model.position", "model.initialization", "data.path", "data.sequence_length"),
        *("data.windows", "optimizer.name", "optimizer.learning_rate", "optimizer.weight_decay", "schedule.name"),
        *("schedule.warmup", "schedule.final_fraction", "training.objective", "training.duration"),
        *("training.batch_size", "training.gradient_accumulation_steps", "checkpoint.every", "evaluation.every"),
    }
)
# These fields are shown in the facts `compute` and `mesh`.
IN_FACTS = frozenset({"model.dtype", "model.layers", "model.attention", "model.remat", *(f"mesh.{a}" for a in AXES)})
# Columns of an interval's line that are dropped on a narrow terminal, in this order.
DISPENSABLE = ("memory", "wait", "done", "grad", "ms/step", "MFU", "lr", "valid", "left", "tok/s")
OUTLIER = 4.0  # z-scores of at least this size are shown
ROW_CHARACTERS = 2000  # of a row that is shown before the run
GAP = "  "  # between two columns of a line

# --- formatting numbers ----------------------------------------------------------------------------------------------


def _number(value: float | None, form: str) -> str:
    """Formats a value: '–' if it is None; 'nan' and 'inf' are kept."""
    return "–" if value is None else format(float(value), form)


def _percent(value: float | None) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{100 * value:.1f}%"


# --- before the first step -------------------------------------------------------------------------------------------


def make_console() -> Console:
    """The console of a run: as wide as the terminal, LOG_WIDTH elsewhere, and silent in all processes but the first."""
    console = Console(quiet=jax.process_index() != 0)
    return console if console.is_terminal else Console(quiet=console.quiet, width=LOG_WIDTH)


def derived_facts(plan: Plan) -> dict[str, dict[str, str]]:
    """The facts that follow from a plan, in sections for `print_settings`."""
    config, counts, total_tokens = plan.config, plan.parameters, plan.total_tokens
    model = config.model
    axes = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.shape.items() if size > 1)
    devices = plan.devices
    kinds = [devices.kind] if isinstance(devices, AbstractDevices) else sorted({one.device_kind for one in devices})
    active = f", {count_text(counts.active)} active" if counts.active < counts.total else ""
    run = {
        "parameters": f"{counts.total:,} ({count_text(counts.non_embedding)} without embedding{active})",
        "steps": f"{plan.total_steps:,} of {counted(plan.tokens_per_step, 'token')}",
        "tokens": f"{count_text(total_tokens)} ({total_tokens / max(counts.total, 1):.1f} per parameter)",
    }
    for convention, formula in plan.flop_formulas.items():
        flops = plan.flops_per_token[convention]
        amount = f"{count_text(flops)} per token, {flops * total_tokens:.2e} in total"
        run[f"FLOPs, {convention}"] = f"{amount} ({formula})"
    run |= {
        "devices": f"{plan.mesh.size} × {', '.join(kinds)}",
        "mesh": axes or "one device",
        **_pipeline_facts(plan),
        "compute": f"{model.dtype}, attention {model.attention}, layers {model.layers}, remat {model.remat}"
        + (f", experts {model.expert_products}" if model.num_experts else ""),
        "utilization": plan.peak.label,
    }
    updates = {}
    for group in summarize(treatments_of(config.optimizer, plan.trainer.declared, plan.trainer.objective.trains)):
        name = f"{group['method']}, {count_text(group['num_parameters'])}"
        details = "no gradient changes them" if group["method"] == "frozen" else f"decay {group['weight_decay']:g}"
        if group["method"] != "frozen" and group["learning_rate"] != 1.0:
            details += f", rate × {group['learning_rate']:g}"
        shown = ", ".join(re.sub(r"(body/)?layers/(?!\d)", "", path) for path in group["paths"][:4])
        updates[name] = f"{details}: {shown}" + (", …" if len(group["paths"]) > 4 else "")
    return {"run": run, "updates": updates}


def _pipeline_facts(plan: Plan) -> dict[str, str]:
    """The idle time of a pipeline; empty without a pipeline."""
    schedule = schedule_of(plan.config.mesh, plan.mesh)
    if schedule.stages == 1:
        return {}
    flow = f"{counted(schedule.microbatches, 'micro-batch', 'micro-batches')} through {schedule.stages} stages"
    rounds = f", {schedule.repeats} times" if schedule.repeats > 1 else ""
    return {"pipeline": f"{flow}{rounds}: each stage is idle for {_percent(schedule.bubble)} of the layers' time"}


def epochs_facts(data: Dataset, total_steps: int, validation: Dataset | None) -> dict[str, str]:
    """The number of epochs of a run, and whether batches are larger than the data; for `print_settings`."""
    whole, each = data.epochs(total_steps), data.epochs(1)
    epochs = ", ".join(f"{_number(n, '.3g')}{f' of {folder}' if len(whole) > 1 else ''}" for folder, n in whole.items())
    facts = {
        "epochs": f"{epochs} ({counted(data.num_tokens, 'token')}, {counted(data.num_windows, 'window')} available)"
    }
    what = {"conversations": "conversation", "pairs": "pair"}.get(data.form, "text")
    what = "preference" if data.form.endswith("preferences") else what
    if weights := data.fingerprint().get("rewriting", {}).get("class_weights"):
        pairs = ", ".join(f"{label} {weight:.3g}" for label, weight in list(zip(data.labels, weights))[:MOST_WEIGHTS])
        facts["class weights"] = pairs + ", …" * (len(weights) > MOST_WEIGHTS)
    if data.truncated:
        facts["TRUNCATED"] = f"{counted(data.truncated, what)} to data.sequence_length; the beginning is read"
    if data.left_out:
        longer = "longer than data.sequence_length, or with no answer in a row of this length"
        if data.form == "pairs":
            longer = "longer than data.source_length or data.sequence_length"
        facts["LEFT OUT"] = f"{counted(data.left_out, what)} {longer}"
    if repeated := [f"{folder} {_number(n, '.3g')} times" for folder, n in each.items() if n > 1]:
        facts["REPEATED"] = (
            f"a batch has more rows than the data has windows: it reads each window of {', '.join(repeated)}"
        )
    if validation is not None:
        facts["validation"] = (
            f"{counted(validation.num_windows, 'window')} of {counted(validation.num_tokens, 'token')}, "
            f"set {validation.identity()}"
        )
    return facts


def print_settings(console: Console, config: Settings, facts: Mapping[str, Mapping[str, str]]) -> None:
    """Prints the fields of the (resolved) config by section, then the facts that follow from it.

    Fields that are at their defaults or IN_FACTS are only counted, except for ALWAYS_SHOWN: config.json has them all.
    """
    defaults, flat = flatten(default()), flatten(config)
    named = ALWAYS_SHOWN | {field for field in flat if flat[field] != defaults[field]} - IN_FACTS
    shown = {field: value for field, value in flat.items() if field in named}
    sections: dict[str, dict[str, Any]] = {}
    for field, value in shown.items():
        section, _, name = field.rpartition(".")
        sections.setdefault(section or "general", {})[name] = value
    console.print(_side_by_side(sections, console.width))
    rest = f"and {len(flat) - len(shown)} fields that are at their defaults or follow below (config.json has all)"
    console.print(Text(rest, style="dim"), "", sep="\n")
    for name, fields in facts.items():
        console.print(_section(name, fields))
    console.print()


def print_row(console: Console, row: Text | None) -> None:
    """Prints a row that an objective shows before the run, cut to ROW_CHARACTERS."""
    if row is not None:
        row.truncate(ROW_CHARACTERS, overflow="ellipsis")
        console.print(Text("the first row: the loss is on ⟦what is in brackets⟧", "bold"), soft_wrap=True)
        console.print(row, "", sep="\n", soft_wrap=True)


def _side_by_side(sections: Mapping[str, Mapping[str, Any]], width: int) -> Table:
    """Arranges the sections in as many columns as fit side by side; each column is filled before the next."""
    tables = {name: _section(name, fields, MOST_VALUE_WIDTH) for name, fields in sections.items()}
    for columns in range(MOST_COLUMNS, 0, -1):
        filled = _filled({name: len(fields) + 2 for name, fields in sections.items()}, columns)
        widths = [max(_width(name, sections[name]) for name in names) for names in filled]
        if sum(widths) + COLUMN_GAP * (len(widths) - 1) <= width:
            break
    grid = Table.grid(padding=(0, COLUMN_GAP, 0, 0), pad_edge=False)
    grid.add_row(*(Group(*(part for name in names for part in (tables[name], ""))) for names in filled))
    return grid


def _filled(heights: Mapping[str, int], columns: int) -> list[list[str]]:
    """Distributes the names over at most `columns` columns of about equal height."""
    target = sum(heights.values()) / columns
    filled: list[list[str]] = [[]]
    height = 0
    for name in heights:
        if height and height + heights[name] / 2 > target and len(filled) < columns:
            filled.append([])
            height = 0
        filled[-1].append(name)
        height += heights[name]
    return filled


def _width(title: str, fields: Mapping[str, Any]) -> int:
    """The width of a section whose values wrap at MOST_VALUE_WIDTH."""
    names, values = map(len, fields), (min(len(_shown(value)), MOST_VALUE_WIDTH) for value in fields.values())
    return max(len(title), max(names, default=0) + 1 + max(values, default=0))


def _section(title: str, fields: Mapping[str, Any], value_width: int | None = None) -> Group:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold", max_width=value_width)
    for name, value in fields.items():
        table.add_row(one_line(name), Text(_shown(value)))
    return Group(Text(title, style="bold cyan"), table)  # a title inside the table would widen its first column


def _shown(value: Any) -> str:
    shown = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    return one_line(shown) if shown.strip() else repr(shown)


# --- while it runs ---------------------------------------------------------------------------------------------------


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """Prints each text as a permanent line: 'resumed from step 500', 'checkpoint saved', …"""
    for text in notes:
        print_note(console, Text.assemble(("› ", "dim"), text))


class TrainingView:
    """Shows a run from `start_step` to `total_steps`. As a context manager, it restores the terminal at the end.

    convention: the FLOP convention of the 'mfu' metric, named in the header.
    scores: the scores of an evaluation, in the order of its line; the first has a column of its own.
    """

    def __init__(
        self,
        console: Console,
        total_steps: int,
        start_step: int = 0,
        convention: str = "causal",
        scores: Sequence[Score] = NextToken.scores,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console, self._clock, self._scores = console, clock, scores
        self._total, self._start_step, self._step = total_steps, start_step, start_step
        self._started = clock()
        self._names: list[str] = []
        self._validation: float | None = None
        self._lines = 0
        self._mfu_name = f"{convention} MFU"
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=30),
            TextColumn("{task.completed}/{task.total}  {task.fields[status]}"),
            console=console,
            refresh_per_second=4,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total_steps, completed=start_step, status="starting")

    def __enter__(self) -> TrainingView:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Prints a permanent line: 'resumed from step 500', 'checkpoint saved', …"""
        print_notes(self._console, [text])

    def compiled(self, seconds: float) -> None:
        """Prints how long compiling took, and starts the clock of the remaining time, which excludes compiling."""
        self._started, self._start_step = self._clock(), self._step
        self.note(f"compiled in {seconds:.1f} s (not counted in the rates below)")

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Shows in the status line what the run does instead of training: 'evaluating', 'saving', …"""
        self._progress.update(self._task, status=what)
        yield
        self._progress.update(self._task, status=self._status())

    def advance(self, step: int) -> None:
        """Updates the status line after `step` steps. Cheap enough for every step."""
        self._step = step
        self._progress.update(self._task, completed=step, status=self._status())

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds the permanent line of an interval. metrics: named as in metrics.jsonl; missing metrics are shown as
        '–'."""
        self.advance(step)
        columns = self._fitting(self._columns(step, metrics))
        names = [name for name, _ in columns]
        if self._lines % HEADER_EVERY == 0 or names != self._names:
            self._names = names
            self._print(Text(GAP.join(f"{name:>{len(cell)}}" for name, cell in columns), "bold"))
        self._lines += 1
        line = Text(GAP.join(cell for _, cell in columns))
        remarks = [
            f"{name.replace('_', ' ')} {float(zscore):+.1f}σ"
            for name in ("loss", "gradient_norm")
            if (zscore := metrics.get(f"train/{name}_zscore")) is not None and zscore >= OUTLIER
        ]
        remarks += ["skipped"] if metrics.get("train/skipped") else []
        if remarks:
            added = GAP + GAP.join(remarks)
            line.append(added if len(line) + len(added) <= self._console.width else f"\n{added}", "bold red")
        self._print(line)

    def _fitting(self, columns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Drops the least important columns until the rest fit the terminal."""
        kept = list(columns)
        for dispensable in DISPENSABLE:
            if sum(len(cell) for _, cell in kept) + len(GAP) * (len(kept) - 1) <= self._console.width:
                break
            kept = [(name, cell) for name, cell in kept if not name.endswith(dispensable)]
        return kept

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)

    def validated(self, step: int, metrics: Mapping[str, Any], best: bool = False) -> None:
        """Adds the line of an evaluation; its loss is repeated in the following interval lines."""
        self._validation = metrics[self._scores[0].name]
        parts = [
            score.line.format(metrics[score.name]) for score in self._scores if metrics.get(score.name) is not None
        ]
        parts += ["best so far"] if best else []
        while True:
            line = f"› validation at step {step}: {', '.join(parts)}"
            if len(line) <= self._console.width or len(parts) <= 1 + best:
                break
            parts.pop(1)  # the first score always stays; the second is dropped first
        self._print(Text(line, "green"))

    def seconds_left(self) -> float | None:
        """Estimated from the average speed since compiling, evaluations and saves included; None before the first
        step."""
        done = self._step - self._start_step
        return (self._clock() - self._started) / done * (self._total - self._step) if done > 0 else None

    def _status(self) -> str:
        return f"{100 * self._step / max(self._total, 1):.1f}%  {duration_text(self.seconds_left())} left"

    def _columns(self, step: int, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(header, cell) pairs, each cell padded to its column's width."""
        get = metrics.get
        milliseconds = get("step_milliseconds")
        digits = len(str(self._total))
        return [
            ("step", f"{step:>{digits}}/{self._total}"),
            ("done", f"{_percent(step / max(self._total, 1)):>6}"),
            ("loss", f"{_number(get('train/loss'), '.4f'):>7}"),
            ("valid", f"{_number(get(self._scores[0].name, self._validation), '.4f'):>7}"),
            ("grad", f"{_number(get('train/gradient_norm'), '.3g'):>7}"),
            ("lr", f"{_number(get('learning_rate'), '.2e'):>8}"),
            ("ms/step", f"{_number(milliseconds, '.1f' if milliseconds is None or milliseconds < 1e4 else '.0f'):>7}"),
            ("tok/s", f"{count_text(get('tokens_per_second')):>6}"),
            (self._mfu_name, f"{_percent(get('mfu')):>{len(self._mfu_name)}}"),
            ("wait", f"{_percent(get('data_wait_fraction')):>5}"),
            ("memory", f"{bytes_text(get('device_memory_bytes')):>9}"),
            ("left", f"{duration_text(self.seconds_left()):>7}"),
        ]


# --- at the end ------------------------------------------------------------------------------------------------------


def run_summary(
    throughput: Throughput,
    *,
    step: int,
    tokens: int,
    mfu: float | None,
    peak: Peak,
    convention: str,
    memory: Memory,
    train_loss: float | None = None,
    scores: Sequence[Score] = NextToken.scores,
    validation: Mapping[str, Any] | None = None,
    best: float | None = None,
) -> dict[str, str]:
    """The results of a finished or stopped run, for `print_summary`. `step` and `tokens`: the numbers reached."""
    rates = throughput.overall()
    summary = {"steps": f"{step:,} ({count_text(tokens)} tokens)"}
    if train_loss is not None:
        summary["training loss"] = _number(train_loss, ".4f")
    if validation:
        judged_by, *others = scores
        summary[f"validation {judged_by.title}"] = _number(validation[judged_by.name], ".4f")
        if best is not None:
            summary[f"validation {judged_by.title}"] += f" (best {_number(best, '.4f')})"
        summary |= {s.title: _number(validation[s.name], ".4f") for s in others if validation.get(s.name) is not None}
    spent = [f"training {duration_text(throughput.training_seconds)}"]
    spent += [f"{what} {duration_text(seconds)}" for what, seconds in throughput.seconds.items() if seconds >= 0.5]
    summary["time"] = f"{duration_text(throughput.elapsed_seconds)} ({', '.join(spent)})"
    if not math.isfinite(rates.tokens_per_second):  # stopped before the first step
        return summary | {"peak memory": f"{bytes_text(memory.peak)} ({memory.kind})"}
    summary["speed"] = f"{count_text(rates.tokens_per_second)} tokens/s, {rates.step_milliseconds:.1f} ms per step"
    summary["utilization"] = f"{_percent(mfu)} {peak.label} ({convention} FLOPs)" if mfu is not None else peak.label
    summary["waiting for data"] = _percent(rates.data_wait_fraction)
    summary["peak memory"] = f"{bytes_text(memory.peak)} ({memory.kind})"
    return summary


def print_summary(console: Console, title: str, summary: Mapping[str, str]) -> None:
    """Prints the end of a run: `title` ('finished', 'stopped by SIGTERM', …) and its results."""
    console.print()
    console.print(_section(title, summary))
