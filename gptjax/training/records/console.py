"""The console output of a training run: notes, a live view and the summary. Computes no metrics.

On a terminal, a status line at the bottom is updated and a permanent line is added per logging interval. Elsewhere (a
file, a job's log), only the permanent lines are written. Only the first process prints.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from rich.console import Group
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from gptjax.display.formatting import bytes_text, count_text, duration_text, number_text, percent_text
from gptjax.display.terminal import Console, one_line, print_note
from gptjax.evaluation.scores import Score
from gptjax.training.hardware import Memory, Peak
from gptjax.training.metrics import Throughput
from gptjax.training.objectives.next_token import NextToken

LOG_WIDTH = 120  # columns of a log that is not a terminal
HEADER_EVERY = 25  # permanent lines
# Columns of an interval's line that are dropped on a narrow terminal, in this order.
DISPENSABLE = ("memory", "wait", "done", "grad", "ms/step", "MFU", "lr", "valid", "left", "tok/s")
OUTLIER = 4.0  # z-scores of at least this size are shown
GAP = "  "  # between two columns of a line


def make_console() -> Console:
    """The console of a run: as wide as the terminal, LOG_WIDTH elsewhere, and silent in all processes but the first."""
    console = Console(quiet=jax.process_index() != 0)
    return console if console.is_terminal else Console(quiet=console.quiet, width=LOG_WIDTH)


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
            ("done", f"{percent_text(step / max(self._total, 1)):>6}"),
            ("loss", f"{number_text(get('train/loss'), '.4f'):>7}"),
            ("valid", f"{number_text(get(self._scores[0].name, self._validation), '.4f'):>7}"),
            ("grad", f"{number_text(get('train/gradient_norm'), '.3g'):>7}"),
            ("lr", f"{number_text(get('learning_rate'), '.2e'):>8}"),
            (
                "ms/step",
                f"{number_text(milliseconds, '.1f' if milliseconds is None or milliseconds < 1e4 else '.0f'):>7}",
            ),
            ("tok/s", f"{count_text(get('tokens_per_second')):>6}"),
            (self._mfu_name, f"{percent_text(get('mfu')):>{len(self._mfu_name)}}"),
            ("wait", f"{percent_text(get('data_wait_fraction')):>5}"),
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
        summary["training loss"] = number_text(train_loss, ".4f")
    if validation:
        judged_by, *others = scores
        summary[f"validation {judged_by.title}"] = number_text(validation[judged_by.name], ".4f")
        if best is not None:
            summary[f"validation {judged_by.title}"] += f" (best {number_text(best, '.4f')})"
        summary |= {
            s.title: number_text(validation[s.name], ".4f") for s in others if validation.get(s.name) is not None
        }
    spent = [f"training {duration_text(throughput.training_seconds)}"]
    spent += [f"{what} {duration_text(seconds)}" for what, seconds in throughput.seconds.items() if seconds >= 0.5]
    summary["time"] = f"{duration_text(throughput.elapsed_seconds)} ({', '.join(spent)})"
    if not math.isfinite(rates.tokens_per_second):  # stopped before the first step
        return summary | {"peak memory": f"{bytes_text(memory.peak)} ({memory.kind})"}
    summary["speed"] = f"{count_text(rates.tokens_per_second)} tokens/s, {rates.step_milliseconds:.1f} ms per step"
    summary["utilization"] = f"{percent_text(mfu)} {peak.label} ({convention} FLOPs)" if mfu is not None else peak.label
    summary["waiting for data"] = percent_text(rates.data_wait_fraction)
    summary["peak memory"] = f"{bytes_text(memory.peak)} ({memory.kind})"
    return summary


def print_summary(console: Console, title: str, summary: Mapping[str, str]) -> None:
    """Prints the end of a run: `title` ('finished', 'stopped by SIGTERM', …) and its results."""
    console.print()
    console.print(titled(title, summary))


def titled(title: str, fields: Mapping[str, Any], value_width: int | None = None) -> Group:
    """The fields as rows of name and value, with a title above them. value_width: longer values wrap."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold", max_width=value_width)
    for name, value in fields.items():
        table.add_row(one_line(name), Text(value_text(value)))
    return Group(Text(title, style="bold cyan"), table)  # a title inside the table would widen its first column


def value_text(value: Any) -> str:
    """The value of a field on one line."""
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    return one_line(text) if text.strip() else repr(text)
