"""Where the figures of a run go: metrics.jsonl (one JSON object a line) and TensorBoard events.

metrics.jsonl is the record that plots and reports are made from. Floats are written so that they read back exactly
(`repr`, float32 values included); JSON has no NaN or infinity, so these are the strings "NaN", "Infinity" and
"-Infinity", which `read_metrics` turns back. A killed run leaves at most one half-written line, and the resumed run
drops every row past the step that it restored, so that no step appears twice.

A full disk costs figures, never the run: what cannot be written waits for the next row (`_PatientFile`).
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

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


class _PatientFile:
    """An appended file whose bytes wait in memory, in order, for as long as the system refuses them.

    Unbuffered, so that it is known how many bytes of a record went out before a disk was full: the next `append` goes
    on behind them, and once there is room again the file is what it would have been. Each outage is logged once.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._file = open(path, "ab", buffering=0)
        self._waiting = bytearray()
        self._refused = False

    def append(self, record: bytes) -> None:
        """Writes what waits and then `record`; both are in the file on return, or wait. Raises no OSError."""
        self._waiting += record
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            if not self._refused:
                logging.error("cannot write %s (%s): its rows wait, the run goes on", self._path, error.strerror)
            self._refused = True
        else:
            self._refused = False

    def close(self) -> None:
        """A last attempt at what waits; what is refused again is lost, and the log says so."""
        self.append(b"")
        if self._waiting:
            logging.error("the last %d bytes of %s are lost", len(self._waiting), self._path)
            self._waiting.clear()
        try:
            self._file.close()
        except OSError as error:  # network file systems may refuse here what they accepted before
            logging.error("cannot close %s (%s): its last rows may be lost", self._path, error.strerror)


class JsonLinesWriter:
    """Appends rows to a metrics.jsonl; every row is in the file when `write` returns, unless the disk is full."""

    def __init__(self, path: str | os.PathLike):
        self._file = _PatientFile(path)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._file.append(_encode({"step": step, **metrics}).encode())

    def close(self) -> None:
        self._file.close()


class TensorBoardWriter:
    """Writes every number as a TensorBoard scalar under its own name, into a new event file of `folder`.

    The records are framed here (TFRecord: length, its checksum, data, its checksum): tensorboardX writes from a thread
    that dies of a full disk, and then waits for ever for room in that thread's queue.

    purge_step: TensorBoard hides what older event files of `folder` hold from this step on.
    """

    def __init__(self, folder: str | os.PathLike, purge_step: int | None = None):
        # slow to import, and not every run wants it
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._session_log = event_pb2.Event, event_pb2.SessionLog
        self._summary, self._checksum = summary_pb2.Summary, masked_crc32c
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files in the order of their names
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = _PatientFile(folder / name)
        self._append(file_version="brain.Event:2")
        if purge_step is not None:
            self._append(step=purge_step, session_log=self._session_log(status=self._session_log.START))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        plain = {name: _plain(value) for name, value in metrics.items()}
        values = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in plain.items()
            if isinstance(value, int | float)
        ]
        self._append(step=step, summary=self._summary(value=values))

    def close(self) -> None:
        self._file.close()

    def _append(self, **fields: Any) -> None:
        data = self._event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        framed = (part + struct.pack("<I", self._checksum(part)) for part in (length, data))
        self._file.append(b"".join(framed))


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
