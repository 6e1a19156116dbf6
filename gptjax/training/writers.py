"""Where the figures of a run go: metrics.jsonl (one JSON object a line) and TensorBoard events.

metrics.jsonl is the record that plots and reports are made from. Floats are written so that they read back exactly
(`repr`, float32 values included); JSON has no NaN or infinity, so these are the strings "NaN", "Infinity" and
"-Infinity", which `read_metrics` turns back. A killed run leaves at most one half-written line, and the resumed run
drops every row past the step that it restored, so that no step appears twice.
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

FILE_NAME = "metrics.jsonl"
_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl in order; lines that are not whole JSON objects (a killed writer's) are left out."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append({key: _NONFINITE.get(v, v) if isinstance(v, str) else v for key, v in row.items()})
    return rows


def truncate_after(path: str | os.PathLike, step: int) -> int:
    """Drops the rows past `step`, and half-written lines; returns how many rows were dropped.

    The file is replaced in one move: killed at any moment, it is the old one or the new one. A missing file is fine.
    """
    path = Path(path)
    if not path.exists():
        return 0
    rows = read_metrics(path)
    kept = [row for row in rows if row["step"] <= step]
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines(_encode(row) for row in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return len(rows) - len(kept)


class JsonLinesWriter:
    """Appends rows to a metrics.jsonl; every row is in the file when `write` returns."""

    def __init__(self, path: str | os.PathLike):
        self._file = open(path, "a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._file.write(_encode({"step": step, **metrics}))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter:
    """Writes every number as a TensorBoard scalar under its own name."""

    def __init__(self, folder: str | os.PathLike, purge_step: int | None = None):
        from tensorboardX import SummaryWriter  # slow to import, and not every run wants it

        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            if isinstance(value := _plain(value), int | float):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class MetricsWriter:
    """All the writers of a run: `workdir`/metrics.jsonl and, if wanted, `workdir`/tensorboard/.

    resume_step: the step that was restored; later rows of the broken run are dropped from both. None: a run from the
    start, and rows that an attempt without a checkpoint left behind are dropped. Only process 0 writes; on the others
    every method does nothing.
    """

    def __init__(self, workdir: str | os.PathLike, tensorboard: bool = True, resume_step: int | None = None):
        self._writers: list[JsonLinesWriter | TensorBoardWriter] = []
        if jax.process_index() != 0:
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        last_step = -1 if resume_step is None else resume_step
        truncate_after(workdir / FILE_NAME, last_step)
        self._writers.append(JsonLinesWriter(workdir / FILE_NAME))
        if tensorboard:
            self._writers.append(TensorBoardWriter(workdir / "tensorboard", purge_step=last_step + 1))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds the row of `step`. Values: numbers, scalar arrays (fetched), strings, or None for "not available"."""
        for writer in self._writers:
            writer.write(step, metrics)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """A scalar of NumPy or JAX as the Python number of the same value."""
    return np.asarray(value).item() if isinstance(value, np.generic | np.ndarray | jax.Array) else value


def _encode(row: Mapping[str, Any]) -> str:
    def finite(value):
        if isinstance(value, float) and not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return value

    return json.dumps({key: finite(_plain(value)) for key, value in row.items()}, allow_nan=False) + "\n"
