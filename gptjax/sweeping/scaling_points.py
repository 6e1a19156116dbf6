"""Reads the runs of sweeps (`python -m gptjax.sweep`) as the points of a scaling law."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gptjax.errors import ConfigError
from gptjax.evaluation.scores import LOSS
from gptjax.scaling.fit import Points
from gptjax.scaling.laws import FLOPS_PER_PARAMETER_AND_TOKEN
from gptjax.sweeping.runs import State
from gptjax.training.records.writers import FILE_NAME, read_metrics

RESULTS = "results.csv"
COUNTS = ("compute", "total")


def read_final(sweeps: Sequence[Path], counts: str = "compute") -> Points:
    """One row per finished run of these sweeps, from their results.csv.

    Args:
      sweeps: folders of sweeps, or their results.csv.
      counts: 'compute': N is a sixth of the FLOPs per token, attention included, so that 6 N D is the compute even of a
        model so small that attention matters; 'total': all parameters.

    Raises:
      ConfigError: there is no results.csv, it lacks a column, or no run has finished.
    """
    rows = [(_size(row, counts), float(row["tokens"]), float(row[LOSS.name])) for _, row in _finished(sweeps)]
    parameters, tokens, losses = map(np.array, zip(*rows))
    return Points(parameters, tokens, losses, np.arange(len(rows)), counts)


def read_curves(sweeps: Sequence[Path], counts: str = "compute") -> Points:
    """A row per evaluation of each finished run of these sweeps, from its metrics.jsonl.

    sweeps: their folders. counts: as for `read_final`.

    Raises:
      ConfigError: as `read_final` does, or a run has no metrics.jsonl.
    """
    rows = []
    for number, (folder, row) in enumerate(_finished(sweeps)):
        path = folder / row["run"] / FILE_NAME
        if not path.exists():
            raise ConfigError(f"{path} does not exist: the folder of a finished run is needed for its training curve")
        scored = [each for each in read_metrics(path) if LOSS.name in each]
        rows += [(_size(row, counts), each["tokens"], each[LOSS.name], number) for each in scored]
    parameters, tokens, losses, runs = map(np.array, zip(*rows))
    return Points(parameters, tokens.astype(float), losses, runs, counts)


def _size(row: dict[str, str], counts: str) -> float:
    if counts not in COUNTS:
        raise ConfigError(f"counts = {counts}: expected one of {', '.join(COUNTS)}")
    if counts == "total":
        return float(row["parameters"])
    return float(row["flops"]) / (FLOPS_PER_PARAMETER_AND_TOKEN * float(row["tokens"]))


def _finished(sweeps: Sequence[Path]) -> list[tuple[Path, dict[str, str]]]:
    """(folder of the sweep, row of its results.csv) of each finished run."""
    found = []
    for sweep in sweeps:
        path = sweep if sweep.suffix == ".csv" else sweep / RESULTS
        if not path.is_file():
            raise ConfigError(f"{path} does not exist: expected the folder of a sweep, or its {RESULTS}")
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            needed = {"run", "state", "parameters", "tokens", "flops", LOSS.name}
            if missing := sorted(needed - set(reader.fieldnames or ())):
                raise ConfigError(f"{path} has no column {missing[0]}: expected the {RESULTS} of a sweep")
            found += [(path.parent, row) for row in reader if row["state"] == State.FINISHED]
    if not found:
        raise ConfigError(f"{', '.join(map(str, sweeps))}: no run has finished")
    return found
