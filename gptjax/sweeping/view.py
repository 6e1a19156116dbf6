"""Shows a sweep while it runs: a live table on a terminal, and a line for each run that starts or ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gptjax.cluster.launch import last_lines
from gptjax.display.formatting import counted, duration_text
from gptjax.display.terminal import Console, print_note
from gptjax.sweeping.predict import Forecast
from gptjax.sweeping.runs import State, Status, SweepRun
from gptjax.training.records.writers import FILE_NAME, read_metrics

REFRESH_SECONDS = 2.0
COLORS = {State.FINISHED: "green", State.FAILED: "bold red"}


class SweepView:
    """A context manager that shows the sweep and restores the terminal at the end.

    Args:
      total: the number of runs in the sweep.
      done: the number of runs that had already finished.
      jobs: the number of runs that are active at a time.
      forecast: predicts the time of a run; it learns from the runs that end.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        done: int,
        jobs: int,
        forecast: Forecast,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console, self._clock = console, clock
        self._total, self._done, self._jobs, self._forecast = total, done, jobs, forecast
        self._first_seen: dict[str, tuple[float, int]] = {}  # run → (time, step) of the first row seen
        self._started: dict[str, float] = {}
        self._refreshed = -REFRESH_SECONDS
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> SweepView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def started(self, run: SweepRun) -> None:
        self._started[run.name] = self._clock()
        print_note(self._console, Text(f"› started   {run.name}", "dim"))

    def ended(self, run: SweepRun, status: Status) -> None:
        """Prints how the run ended, and the last lines of its output if it failed."""
        self._done += status.state == State.FINISHED
        self._forecast.learn(run, status)
        color = COLORS.get(status.state, "yellow")
        loss = status.last("validation/loss") or status.last("train/loss")
        facts = [f"{self._done}/{self._total}", f"step {status.step}/{run.total_steps}"]
        facts += [] if loss is None else [f"loss {loss:.4f}"]
        facts.append(duration_text(self._clock() - self._started[run.name]))
        line = Text.assemble((f"› {status.state:9}", color), f" {run.name}  {', '.join(facts)}")
        print_note(self._console, line)
        if status.state == State.FAILED:
            for text in last_lines(run.workdir):
                self._console.print(Text(f"    {text}", "red"), soft_wrap=True)

    def stopping(self, waiting: int, active: int, detaches: bool) -> None:
        if detaches:
            how = f"{counted(active, 'job goes', 'jobs go')} on without this command"
        else:
            them = "it" if active == 1 else "them"
            how = f"{counted(active, 'run is', 'runs are')} saving (a second Ctrl-C kills {them})"
        print_note(self._console, Text(f"› stopping: {how}, {waiting} not started", "yellow"))

    def refresh(self, active: Sequence[SweepRun], waiting: Sequence[SweepRun]) -> None:
        """Redraws the live table, at most every REFRESH_SECONDS because it reads the runs' files."""
        if self._live is None or self._clock() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = self._clock()
        table = Table.grid(padding=(0, 2))
        left = 0.0
        for run in active:
            step, loss = self._progress(run)
            seconds = self._seconds_left(run, step)
            left += seconds or 0.0
            shown = "–" if loss is None else f"{loss:.4f}"
            bar = ProgressBar(total=run.total_steps, completed=step, width=20)
            steps = f"{step}/{run.total_steps}"
            table.add_row(run.name, bar, steps, f"loss {shown}", f"{duration_text(seconds)} left")
        predicted = [self._forecast.seconds(run) for run in waiting]
        still = [seconds for seconds in predicted if seconds is not None]
        known = None if len(still) < len(predicted) else (left + sum(still)) / max(self._jobs, 1)
        overall = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._total, completed=self._done, width=30)
        counts = f"{self._done}/{self._total} runs done, {len(active)} active"
        overall.add_row(bar, counts, f"about {duration_text(known)} left")
        self._live.update(Group(table, overall), refresh=True)

    def _progress(self, run: SweepRun) -> tuple[int, float | None]:
        """Returns (step, training loss) of an active run."""
        path = run.workdir / FILE_NAME
        rows = [row for row in read_metrics(path) if "train/loss" in row] if path.exists() else []
        if not rows:
            return 0, None
        step = rows[-1]["step"]
        self._first_seen.setdefault(run.name, (self._clock(), step))
        return step, rows[-1]["train/loss"]

    def _seconds_left(self, run: SweepRun, step: int) -> float | None:
        """Estimates from the run's pace since it was first seen, or from the forecast until that is known."""
        seen, first = self._first_seen.get(run.name, (0.0, step))
        if step > first:
            return (self._clock() - seen) / (step - first) * (run.total_steps - step)
        return self._forecast.seconds(run)
