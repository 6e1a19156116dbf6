"""The runs of a sweep: the name, config, folder and command of each, and its progress according to its files.

A run's state depends only on its own files (config.json, metrics.jsonl, checkpoints, and the exit status that the
launcher writes), so a sweep may be killed, moved, or watched from another machine.
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
from gptjax.config import AUTO, ConfigError, flatten, from_json
from gptjax.config.user_code import load_config
from gptjax.data.facts import read_facts
from gptjax.files.folders import is_held
from gptjax.model.resolve import BY_PLATFORM
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import Plan, plan
from gptjax.settings import Settings, freeze
from gptjax.sweeping.algebra import Point
from gptjax.sweeping.definition import Sweep, override
from gptjax.training.checkpoints.loading import saved_steps
from gptjax.training.objectives import make_objective
from gptjax.training.records.writers import FILE_NAME, read_metrics

MICRO_BATCH = ("training.batch_per_device", "training.gradient_accumulation_steps", "model.remat")
LONGEST_NAME = 160  # file systems allow 255 bytes
# Settings that affect how results are computed and shown, but not the results: they may change between two starts.
_FREE = ("checkpoint.", "logging.", "mesh.", "evaluation.sample_", "data.workers", "data.prefetch", "data.verify")


class State(enum.StrEnum):
    FINISHED = "finished"
    RUNNING = "running"  # a process holds the folder's lock
    PARTLY_DONE = "partly done"
    FAILED = "failed"
    NOT_STARTED = "not started"


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
      settings: all settings that differ from the base config: those of the sweep, the point and the command line.
      plan: the run's plan for devices that are not known yet.
    """

    name: str
    point: Point
    base: str
    settings: Mapping[str, Any]
    plan: Plan
    workdir: Path

    @property
    def config(self) -> Settings:
        """The config, in which only fields that depend on the device may still be `auto`."""
        return self.plan.config

    @property
    def total_steps(self) -> int:
        return self.plan.total_steps

    @property
    def command(self) -> list[str]:
        """The command that trains only this run."""
        overrides = [f"--config.{field}={value}" for field, value in self.settings.items()]
        flags = [f"--config={self.base}", f"--workdir={self.workdir}", *overrides]
        return [sys.executable, "-m", "gptjax.train", *flags]


@dataclasses.dataclass(frozen=True)
class Status:
    """The progress of a run.

    Attributes:
      step: the newest step in metrics.jsonl, or 0.
      rows: all rows of metrics.jsonl.
    """

    state: State
    step: int = 0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list, repr=False)

    def last(self, metric: str) -> float | None:
        """Returns the last value of a metric, or None."""
        return next((row[metric] for row in reversed(self.rows) if row.get(metric) is not None), None)


# --- Planning --------------------------------------------------------------------------------------------------------


def plan_runs(sweep: Sweep, workdir: Path, settings: Mapping[str, Any]) -> list[SweepRun]:
    """Plans every run of the sweep, and checks it as far as possible without devices.

    Args:
      workdir: the sweep's folder; each run has its own folder in it.
      settings: settings of the command line, for all runs.

    Raises:
      ConfigError: a run could not start, or two runs have the same name.
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
        facts = read_facts(config.data, make_objective(freeze(config)).windows)
        made = plan(config, facts, AbstractDevices())
        runs.append(SweepRun(name, point, sweep.config, run_settings, made, workdir / name))
    name, count = Counter(run.name for run in runs).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"sweep: {count} runs would have the name {name!r}; every point must have a different name")
    return runs


def folder_name(point: Point) -> str:
    """Returns the point's name without characters that are special in paths, shells or Orbax; 'base' without settings.

    If characters were replaced or cut off, a few digits of a hash keep the name unique.
    """
    plain = re.sub(r"[^\w.,=+-]+", "-", point.name, flags=re.ASCII).strip("-.")[:LONGEST_NAME] or "base"
    if plain == point.name or not point.name:
        return plain
    return f"{plain}-{hashlib.sha256(point.name.encode()).hexdigest()[:6]}"


# --- State on disk ---------------------------------------------------------------------------------------------------


def status_of(run: SweepRun) -> Status:
    """Reads the progress of a run from its folder.

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
    """Raises ConfigError, with both values, if the run's folder was made with other settings."""
    path = run.workdir / "config.json"
    if not path.exists():
        return
    saved, planned = flatten(from_json(path.read_bytes(), str(path))), flatten(run.config)
    different = [
        f"{field} was {saved[field]!r}, is now {value!r}"
        for field, value in planned.items()
        if saved[field] != value and not field.startswith(_FREE) and not _left_to_device(run.config, field, value)
    ]
    if different:
        raise ConfigError(
            f"{run.workdir} holds a run with other settings: {'; '.join(different)}. Use a new --workdir, or delete it"
        )


def _left_to_device(config: Settings, field: str, value: Any) -> bool:
    """Whether a run decides the field itself when it starts, by its devices."""
    section, _, name = field.partition(".")
    if config.training.batch_per_device == AUTO and field in MICRO_BATCH:
        return True
    return section == "model" and name in BY_PLATFORM and value in ("auto", 0)
