"""Writers of a run's metrics: metrics.jsonl (one JSON object per line), TensorBoard, Weights & Biases (optional).

Plots and reports are made from metrics.jsonl. Floats are written so that they are read back exactly (`repr`, also for
float32 values). JSON has no NaN or infinity, so these are the strings "NaN", "Infinity" and "-Infinity", which
`read_metrics` converts back. A killed run leaves at most one half-written line, and the resumed run drops every row
past the step that it restored, so that no step appears twice.

A full disk never ends the run: rows that cannot be written are written together with the next row (`patient_file.py`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from gptjax.config import flatten
from gptjax.files import write_aside
from gptjax.settings import Settings
from gptjax.training.records.patient_file import PatientFile
from gptjax.training.records.tensorboard import TensorBoardWriter
from gptjax.training.records.weights_and_biases import WandbWriter

FILE_NAME = "metrics.jsonl"
_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order; incomplete lines (of a killed writer) are left out."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):  # texts may hold U+2028 and such
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append({key: _NONFINITE.get(v, v) if isinstance(v, str) else v for key, v in row.items()})
    return rows


def truncate_after(path: str | os.PathLike, step: int) -> int:
    """Drops the rows after `step`, and incomplete lines; returns the number of dropped rows.

    The file is replaced atomically, so a kill leaves either the old or the new file. A missing file is no error.
    """
    path = Path(path)
    if not path.exists():
        return 0
    rows = read_metrics(path)
    kept = [row for row in rows if row["step"] <= step]
    with write_aside(path) as file:
        for row in kept:
            file.write(_encode(row).encode())
    return len(rows) - len(kept)


def write_whole(path: Path, text: str) -> None:
    """Writes a text to `path` atomically. A failure is only logged, and the run continues."""
    try:
        path.parent.mkdir(exist_ok=True)
        with write_aside(path) as file:
            file.write(text.encode())
    except OSError as error:
        logging.error("cannot write %s (%s): the run continues without it", path, error.strerror)


class JsonLinesWriter:
    """Appends rows to a metrics.jsonl; every row is in the file when `write` returns, unless the disk is full."""

    def __init__(self, path: str | os.PathLike):
        self._file = PatientFile(path)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._file.append(_encode({"step": step, **metrics}).encode())

    def close(self) -> None:
        self._file.close()


class MetricsWriter:
    """All the writers of a run: `workdir`/metrics.jsonl, `workdir`/tensorboard/ and Weights & Biases.

    tensorboard: whether TensorBoard's files are written. resume_step: the restored step; later rows are dropped. None:
    the run starts at step 0, and rows of an earlier attempt without a checkpoint are dropped. config: the run's config,
    for the writers that show it; its `logging.wandb` names a project, or is ''. Only process 0 writes; in other
    processes, every method does nothing.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        tensorboard: bool = True,
        resume_step: int | None = None,
        config: Settings | None = None,
    ):
        """Raises ConfigError if Weights & Biases is requested but not installed."""
        self._rows: list[JsonLinesWriter | TensorBoardWriter | WandbWriter] = []
        self._texts: list[TensorBoardWriter | WandbWriter] = []
        if jax.process_index() != 0:
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        last_step = -1 if resume_step is None else resume_step
        fields = flatten(config) if config else {}
        if tensorboard:
            writer = TensorBoardWriter(workdir / "tensorboard", purge_step=last_step + 1)
            self._texts.append(writer)
            if fields:
                writer.settings(fields)
        if project := fields.get("logging.wandb"):
            self._texts.append(WandbWriter(workdir, project, fields))
        truncate_after(workdir / FILE_NAME, last_step)
        self._rows += [JsonLinesWriter(workdir / FILE_NAME), *self._texts]

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds the row of `step`. Values: numbers, scalar arrays (fetched), strings, None for "not available", or lists
        of numbers, which only metrics.jsonl gets."""
        plain = {name: _plain(value) for name, value in metrics.items()}
        for writer in self._rows:
            writer.write(step, plain)

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text, such as a sample, to the writers that can show it; metrics.jsonl has only metrics."""
        for writer in self._texts:
            writer.text(step, name, text)

    def close(self) -> None:
        for writer in self._rows:
            writer.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """A scalar of NumPy or JAX as the Python number of the same value."""
    return np.asarray(value).item() if isinstance(value, np.generic | np.ndarray | jax.Array) else value


def _encode(row: Mapping[str, Any]) -> str:
    def finite(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return value

    return json.dumps({key: finite(_plain(value)) for key, value in row.items()}, allow_nan=False) + "\n"
