"""The runs of a sweep: name, config, folder and command of each, and how far it has come by what is on disk.

A run's state is decided by its own files alone (config.json, metrics.jsonl, checkpoints, the exit status that the
launcher leaves), so a sweep may be killed, moved, or watched from another machine.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptjax.cluster.launch import exit_status
from gptjax.config import ConfigError, flatten, from_json
from gptjax.data.facts import read_facts
from gptjax.folders import is_held
from gptjax.model.resolve import BY_PLATFORM
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import Plan, plan
from gptjax.settings import Settings
from gptjax.sweeping.algebra import Point
from gptjax.sweeping.definition import Sweep, override
from gptjax.training.checkpoint import saved_steps
from gptjax.training.writers import FILE_NAME, read_metrics
from gptjax.user_code import load_config

LONGEST_NAME = 160  # file systems end at 255 bytes
# Settings that say how the same figures are computed and shown, not which: these may change between two starts.
_FREE = ("checkpoint.", "logging.", "mesh.", "evaluation.sample_", "data.workers", "data.prefetch", "data.verify")


class State(enum.StrEnum):
    FINISHED = "finished"
    RUNNING = "running"  # some process holds the folder
    PARTLY_DONE = "partly done"
    FAILED = "failed"
    NOT_STARTED = "not started"


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
      settings: all that differs from the base config: the sweep's, the point's, the command line's.
      plan: on devices that are not known yet.
    """

    name: str
    point: Point
    base: str
    settings: Mapping[str, Any]
    plan: Plan
    workdir: Path

    @property
    def config(self) -> Settings:
        """Complete but for what only the device decides."""
        return self.plan.config

    @property
    def total_steps(self) -> int:
        return self.plan.total_steps

    @property
    def command(self) -> list[str]:
        """What a person would type to train this run alone."""
        overrides = [f"--config.{field}={value}" for field, value in self.settings.items()]
        flags = [f"--config={self.base}", f"--workdir={self.workdir}", *overrides]
        return [sys.executable, "-m", "gptjax.train", *flags]


@dataclasses.dataclass(frozen=True)
class Status:
    """state; step: the newest in metrics.jsonl, 0 if there is none; rows: all of it."""

    state: State
    step: int = 0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list, repr=False)

    def last(self, metric: str) -> float | None:
        """The last value of a metric, or None."""
        return next((row[metric] for row in reversed(self.rows) if row.get(metric) is not None), None)


# --- Planning --------------------------------------------------------------------------------------------------------


def plan_runs(sweep: Sweep, workdir: Path, settings: Mapping[str, Any]) -> list[SweepRun]:
    """Every run of the sweep, checked as far as is possible without devices.

    Args:
      workdir: of the sweep; each run has a folder of its own in it.
      settings: of the command line, for all runs.

    Raises:
      ConfigError: the first run that could not start, or two of one name.
    """
    if not sweep.points:
        raise ConfigError("sweep: it has no points")
    base = load_config(sweep.config)
    common = {**sweep.settings, **settings}
    runs = []
    for point in sweep.points:
        for field in point.settings:
            if field in settings:
                raise ConfigError(f"--set={field}=…: the sweep itself varies {field}")
        run_settings = {**common, **point.settings}
        config = override(base, run_settings)
        name = folder_name(point)
        made = plan(config, read_facts(config.data), AbstractDevices())
        runs.append(SweepRun(name, point, sweep.config, run_settings, made, workdir / name))
    name, count = Counter(run.name for run in runs).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"sweep: {count} runs would be called {name!r}; every point needs a name of its own")
    return runs


def folder_name(point: Point) -> str:
    """The point's name with nothing in it that a path, a shell or Orbax objects to; 'base' for no settings at all.

    What had to be replaced or cut off is told apart by a few digits of a hash.
    """
    plain = re.sub(r"[^\w.,=+-]+", "-", point.name, flags=re.ASCII).strip("-.")[:LONGEST_NAME] or "base"
    if plain == point.name or not point.name:
        return plain
    return f"{plain}-{hashlib.sha256(point.name.encode()).hexdigest()[:6]}"


# --- What is on disk -------------------------------------------------------------------------------------------------


def status_of(run: SweepRun) -> Status:
    """How far a run has come.

    Raises:
      ConfigError: the folder holds a run with other settings.
    """
    check_same_settings(run)
    path = run.workdir / FILE_NAME
    rows = read_metrics(path) if path.exists() else []
    step = max((row["step"] for row in rows), default=0)
    if is_held(run.workdir):
        return Status(State.RUNNING, step, rows)
    saved = saved_steps(run.workdir)
    if step >= run.total_steps and saved and saved[-1] >= run.total_steps:
        return Status(State.FINISHED, step, rows)
    if exit_status(run.workdir):
        return Status(State.FAILED, step, rows)
    return Status(State.PARTLY_DONE if saved or rows else State.NOT_STARTED, step, rows)


def check_same_settings(run: SweepRun) -> None:
    """Raises ConfigError, with both values, where the run's folder was made with other settings."""
    path = run.workdir / "config.json"
    if not path.exists():
        return
    there, here = flatten(from_json(path.read_bytes(), str(path))), flatten(run.config)
    different = [
        f"{field} is {there[field]!r} there, {value!r} here"
        for field, value in here.items()
        if there[field] != value and not field.startswith(_FREE) and not _left_to_device(field, value)
    ]
    if different:
        raise ConfigError(
            f"{run.workdir} holds a run with other settings: {'; '.join(different)}. Use a new --workdir, or delete it"
        )


def _left_to_device(field: str, value: Any) -> bool:
    section, _, name = field.partition(".")
    return section == "model" and name in BY_PLATFORM and value in ("auto", 0)
