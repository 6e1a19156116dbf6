"""Compares runs by reading their folders: their metrics, their validation sets and the differences of their configs."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from gptjax import tokenizer as tokenizers
from gptjax.config import ConfigError, Units, flatten, from_json, get, suggestion, validate
from gptjax.config.named_functions import is_named
from gptjax.data.facts import DataFacts
from gptjax.display.formatting import count_text
from gptjax.evaluation.scores import BITS_PER_BYTE, LOSS, SET, Score
from gptjax.files.folders import is_held
from gptjax.files.paths import CONFIG, existing_run
from gptjax.model.families import family_of, validate_model
from gptjax.model.parameters import count_parameters
from gptjax.planning import resolve
from gptjax.settings import Settings
from gptjax.training.checkpoints.run_metadata import MODEL_MAY_BE_OWN
from gptjax.training.objectives import OBJECTIVES
from gptjax.training.records.history import code_over_time
from gptjax.training.records.writers import FILE_NAME, read_metrics

TOKENS = "validation/tokens"
UNLIKE = "≠"
FORMATS = (".png", ".svg", ".pdf")  # file formats of a plot
# EVALUATION decides which windows are scored, and with how much context. SHOWN_ONLY does not affect a run's result.
EVALUATION = ("data.path", "data.sequence_length", "data.windows")
SHOWN_ONLY = ("logging.", "checkpoint.", "evaluation.sample_")


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A run as currently recorded in its folder. name: its path below the common parent folder of all compared runs."""

    folder: Path
    name: str
    config: Settings
    rows: list[dict[str, Any]]

    def last(self, metric: str) -> Any:
        """The last value of a metric, or None."""
        return next((row[metric] for row in reversed(self.rows) if row.get(metric) is not None), None)

    def best(self, score: Score) -> float | None:
        """The best value on the set that was scored last."""
        rows = [row for row in self.rows if row.get(SET) == self.last(SET)]
        best = score.best(row[score.name] for row in rows if row.get(score.name) is not None)
        return best if math.isfinite(best) else None

    @property
    def judged_by(self) -> Score:
        """The first score of its objective. For a user's own objective it is the loss, since reading a run imports no
        user code."""
        objective = OBJECTIVES.get(self.config.training.objective)
        return objective.scores[0] if objective else LOSS

    @property
    def step(self) -> int:
        return max((row["step"] for row in self.rows), default=0)

    @functools.cached_property
    def total_steps(self) -> int | None:
        """None if the duration is in epochs, which depend on data that may not be here."""
        training = self.config.training
        units = Units(training.batch_size * self.config.data.sequence_length)
        try:
            return units.steps(training.duration, "training.duration")
        except ConfigError:
            return None

    @functools.cached_property
    def num_parameters(self) -> int | None:
        """None if it depends on user code, which reading a run does not import."""
        if any(is_named(get(self.config, field)) for field in MODEL_MAY_BE_OWN):
            return None
        # Prepared elsewhere.
        model = dataclasses.replace(self.config.model, attention="auto", dtype="auto", layers="auto")
        facts = DataFacts(vocab_size=max(model.vocab_size, 1))
        training = dataclasses.replace(self.config.training, batch_per_device="")  # decided for other devices
        config = dataclasses.replace(self.config, model=model, training=training)
        model = resolve(config, facts, platform="cpu", batch_devices=1).model
        return count_parameters(family_of(model).declarations).total

    @functools.cached_property
    def tokenizer_hash(self) -> str:
        try:
            return tokenizers.load(self.folder).hash
        except ConfigError:
            return ""

    @functools.cached_property
    def evaluated_on(self) -> dict[str, Any]:
        """The conditions under which its validation loss was measured. Losses can be compared only if these are
        equal."""
        of_config = {} if self.last(SET) else {field: flatten(self.config)[field] for field in EVALUATION}
        scored = {"the set of windows": self.last(SET), "tokens scored": self.last(TOKENS)}
        return {**of_config, **scored, "the score": self.judged_by.name, "the tokenizer": self.tokenizer_hash}


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Finds the folders of runs. Each given folder is a run's, or contains the folders of several runs, like a sweep's.

    Raises:
      ConfigError: a folder is not a run's and does not contain one.
    """
    found: list[Path] = []
    for folder in folders:
        of_sweep = [] if (folder / CONFIG).is_file() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        found += of_sweep or [existing_run(folder, "RUN")]
    return found


def read_runs(folders: Sequence[Path]) -> list[RecordedRun]:
    """Reads the runs that `run_folders` finds.

    Raises:
      ConfigError: as `run_folders` does, or a run's config cannot be read.
    """
    found = run_folders(folders)
    absolute = [path.absolute() for path in found]
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    return [_read(path, str(whole.relative_to(common))) for path, whole in zip(found, absolute)]


def _read(folder: Path, name: str) -> RecordedRun:
    path, metrics = folder / CONFIG, folder / FILE_NAME
    try:
        config = from_json(path.read_bytes(), str(path))
        validate(config)
        if not is_named(config.model.family):  # reading a run imports no user code
            validate_model(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix(str(path)).lstrip(': ')}") from None
    return RecordedRun(folder, name, config, read_metrics(metrics) if metrics.exists() else [])


def table(runs: Sequence[RecordedRun]) -> Table:
    """A row per run. UNLIKE marks losses that were measured on different text than the first run's."""
    made = Table(box=None, pad_edge=False)
    made.add_column("run", overflow="fold")
    score = runs[0].judged_by.name.replace("/", " ").replace("_", " ")
    heads = ("steps", "tokens", "parameters", score, "best", "bits per byte", "tokens/s")
    for head in heads:
        made.add_column(head, justify="right", no_wrap=head in ("steps", "tokens", "tokens/s"))
    for run in runs:
        speeds = [row["tokens_per_second"] for row in run.rows if row.get("tokens_per_second") is not None]
        mark = UNLIKE if run.evaluated_on != runs[0].evaluated_on else ""
        steps = f"{run.step:,}" if run.total_steps in (None, run.step) else f"{run.step:,} of {run.total_steps:,}"
        made.add_row(
            run.name,
            steps + (", running" if is_held(run.folder) else ""),
            count_text(run.last("tokens")),
            count_text(run.num_parameters),
            _number(run.last(run.judged_by.name)) + mark,
            _number(run.best(run.judged_by)) + mark,
            _number(run.last(BITS_PER_BYTE.name)),
            count_text(statistics.median(speeds)) if speeds else "–",
        )
    return made


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def unlike_evaluations(runs: Sequence[RecordedRun]) -> list[str]:
    """One sentence for each run whose losses cannot be compared with the first run's."""
    reference = runs[0].evaluated_on
    notes = []
    for run in runs[1:]:
        evaluated_on = run.evaluated_on
        different = [name for name in {**reference, **evaluated_on} if reference.get(name) != evaluated_on.get(name)]
        if different and run.last(run.judged_by.name) is not None:
            notes.append(
                f"{UNLIKE} {run.name}: its losses cannot be compared with those of {runs[0].name}; these differ: "
                f"{', '.join(different)}"
            )
    return notes


def differences(runs: Sequence[RecordedRun]) -> dict[str, list[Any]]:
    """Config field → its value in each run, for fields whose values differ; likewise for the code of user functions."""
    flat = [flatten(run.config) for run in runs]
    codes = [{f"code of {name}": code for name, code in code_over_time(run.folder).items()} for run in runs]
    found = {field: [one[field] for one in flat] for field in flat[0] if not field.startswith(SHOWN_ONLY)}
    found |= {name: [code.get(name) for code in codes] for every in codes for name in every}
    return {field: values for field, values in found.items() if any(value != values[0] for value in values)}


def differences_table(runs: Sequence[RecordedRun], differing: dict[str, list[Any]]) -> Table:
    """A row per run, or per field if there are more fields than runs."""
    shown = {field: [_shown(value) for value in values] for field, values in differing.items()}
    if len(shown) > len(runs):
        heads, rows = ["field", *(run.name for run in runs)], [[field, *values] for field, values in shown.items()]
    else:
        heads = ["run", *shown]
        rows = [[run.name, *values] for run, *values in zip(runs, *shown.values())]
    made = Table(box=None, pad_edge=False)
    for head in heads:
        made.add_column(head, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) and value else repr(value)


def check_plot(path: Path, option: str) -> None:
    """Raises ConfigError, whose message begins with `option`, unless a plot can be written to a file of that name."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{option}={path}: must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")


def check_metric(runs: Sequence[RecordedRun], metric: str, x: str) -> None:
    """Raises ConfigError, whose message lists the available metrics, unless a run has finite values to draw."""

    def is_drawn(row: dict[str, Any], name: str) -> bool:
        values = (row.get(name), row.get(x))
        return all(isinstance(value, int | float) and math.isfinite(value) for value in values)

    known = sorted({name for run in runs for row in run.rows for name in row if is_drawn(row, name)} - {x})
    if metric not in known:
        raise ConfigError(
            f"--metric={metric}: no run has this metric with --x={x}{suggestion(metric, known)}; available: "
            f"{', '.join(known) or 'none yet'}"
        )


def plot(runs: Sequence[RecordedRun], path: Path, metric: str, x: str) -> Path:
    """Draws a metric of every run that has it.

    Raises:
      ConfigError: as `check_metric`.
    """
    from gptjax.training.records.plots import compare_runs  # matplotlib is slow to import

    check_metric(runs, metric, x)
    return compare_runs({run.name: [run.folder] for run in runs}, path, metric, x)
