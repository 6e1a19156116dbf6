"""What was predicted of runs and what came: a file of this user's runs, on which the next prediction is calibrated.

Each run that ends adds a line to the file. The predicted time of a step is then multiplied by the median of
measured ÷ predicted over the last runs on the same kind of device in the same dtype, so that single runs that were
disturbed do not count.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptjax.files import append_line
from gptjax.files.folders import state_folder

VARIABLE = "GPTJAX_HISTORY"  # names the file; empty: runs are not compared with predictions, and no file is used
RECENT = 30  # the number of newest runs of a kind that count
LEAST_STEPS = 10  # of a run that is recorded
MOST_WAITING = 0.2  # fraction of a run's time: if it waited longer for data, its speed says little of the device


@dataclasses.dataclass(frozen=True)
class Figures:
    """Figures of a run, predicted or measured; None: unknown.

    Attributes:
      step_seconds: the time of one step.
      memory: bytes per device; measured on a CPU, it is the peak of the whole process.
      seconds: the time of all steps of this start, with evaluations and saves, without compilation.
      loss: nats per token at the end.
    """

    step_seconds: float
    memory: int
    seconds: float
    loss: float | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One line of the file.

    Attributes:
      time: when the run ended, in ISO 8601.
      kind: the kind of device (`kind_of`).
      steps: the number of steps of this start.
      factor: the calibration that the predicted times include.
      waiting: fraction of the time in which the run waited for data.
    """

    time: str
    kind: str
    dtype: str
    devices: int
    parameters: int
    tokens_per_step: int
    steps: int
    source: str
    factor: float
    waiting: float
    predicted: Figures
    measured: Figures

    @property
    def ratio(self) -> float:
        """Measured time of a step per predicted time without calibration."""
        return self.measured.step_seconds / (self.predicted.step_seconds / self.factor)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The factor for predicted times, and the number of runs it comes from.

    damaged: the number of lines of the file that cannot be read.
    """

    factor: float = 1.0
    runs: int = 0
    damaged: int = 0


def history_file() -> Path | None:
    """The file, which GPTJAX_HISTORY may name; None: none is wanted."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return state_folder() / "runs.jsonl"
    return Path(named).expanduser() if named else None


def calibrate(kind: str, dtype: str) -> Calibration:
    """The calibration by the earlier runs on this kind of device in this dtype."""
    outcomes, damaged = read_outcomes()
    ratios = [
        each.ratio for each in outcomes if (each.kind, each.dtype) == (kind, dtype) and each.waiting <= MOST_WAITING
    ][-RECENT:]
    return Calibration(statistics.median(ratios) if ratios else 1.0, len(ratios), damaged)


def record(outcome: Outcome) -> Path | None:
    """Adds a line to the file and returns the file; None if none is wanted.

    Raises:
      OSError: the file cannot be written.
    """
    if (path := history_file()) is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, json.dumps(dataclasses.asdict(outcome)))
    return path


def read_outcomes() -> tuple[tuple[Outcome, ...], int]:
    """The runs of the file, the oldest first, and the number of damaged lines. Without a readable file, none."""
    if (path := history_file()) is None:
        return (), 0
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError:
        return (), 0


@functools.lru_cache(maxsize=1)  # a search predicts hundreds of runs
def _read(path: Path, changed: int, size: int) -> tuple[tuple[Outcome, ...], int]:
    """Raises OSError. changed, size: of the file, so that it is read again when it has grown."""
    found, damaged = [], 0
    for line in filter(str.strip, path.read_text(encoding="utf-8", errors="replace").split("\n")):
        try:
            found.append(_parsed(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
            damaged += 1
    return tuple(found), damaged


def _parsed(row: Any) -> Outcome:
    """Raises ValueError, TypeError, KeyError or ArithmeticError for anything that `record` did not write."""
    outcome = Outcome(**{**row, "predicted": Figures(**row["predicted"]), "measured": Figures(**row["measured"])})
    kinds: Mapping[str, type | tuple[type, ...]] = {"kind": str, "dtype": str, "waiting": (int, float)}
    for name, kind in kinds.items():
        if not isinstance(getattr(outcome, name), kind):
            raise TypeError(name)
    if not (math.isfinite(outcome.ratio) and outcome.ratio > 0):
        raise ValueError("a time is not a positive number")
    return outcome
