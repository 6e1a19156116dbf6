"""Writes a run's TensorBoard files: metrics in groups, the config (also as hyperparameters), and samples as text."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptjax.training.records.patient_file import PatientFile

GROUPS = {  # groups of metrics whose names in metrics.jsonl have no group
    "learning_rate": "optimizer",
    "muon_learning_rate": "optimizer",
    "tokens_per_second": "speed",
    "step_milliseconds": "speed",
    "mfu": "speed",
    "data_wait_fraction": "speed",
    "device_memory_bytes": "device",
    "tokens": "progress",
    "elapsed_seconds": "progress",
}
COMPARED = ("validation/loss", "validation/bits_per_byte", "train/loss")  # shown with the hyperparameters


def grouped(name: str) -> str:
    """'train/loss' unchanged, 'mfu' → 'speed/mfu'."""
    return name if "/" in name else f"{GROUPS.get(name, 'other')}/{name}"


class TensorBoardWriter:
    """Writes every number as a scalar under its group, and texts, into a new event file of `folder`.

    This class writes the records itself (TFRecord: length, its checksum, data, its checksum). tensorboardX writes from
    a thread that ends if the disk is full, and then blocks forever on the full queue of that thread.

    purge_step: TensorBoard hides values of older event files of `folder` from this step on.
    """

    def __init__(self, folder: str | os.PathLike, purge_step: int | None = None):
        # slow to import, and not every run needs it
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._session_log = event_pb2.Event, event_pb2.SessionLog
        self._summary, self._checksum = summary_pb2.Summary, masked_crc32c
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files in the order of their names
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = PatientFile(folder / name)
        self._append(file_version="brain.Event:2")
        if purge_step is not None:
            self._append(step=purge_step, session_log=self._session_log(status=self._session_log.START))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """metrics: plain Python values; values that are not numbers are left out."""
        values = [
            self._summary.Value(tag=grouped(name), simple_value=value)
            for name, value in metrics.items()
            if isinstance(value, int | float)
        ]
        self._append(step=step, summary=self._summary(value=values))

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text under `name`. It is indented, so that TensorBoard's Markdown shows it unchanged."""
        from tensorboardX import summary

        indented = "".join(f"    {line}\n" for line in text.encode(errors="backslashreplace").decode().split("\n"))
        self._append(step=step, summary=summary.text(name, indented))

    def settings(self, fields: Mapping[str, Any]) -> None:
        """The config's fields ('optimizer.learning_rate' → value), as a text and as hyperparameters of the run."""
        from tensorboardX import summary

        rows = "".join(f"{name} = {value!r}\n" for name, value in fields.items())
        self.text(0, "config", rows)
        plain = {name: value if isinstance(value, int | float | str) else repr(value) for name, value in fields.items()}
        experiment, start, _ = summary.hparams(plain, dict.fromkeys(COMPARED))
        for one in (experiment, start):
            self._append(summary=one)

    def close(self) -> None:
        self._file.close()

    def _append(self, **fields: Any) -> None:
        data = self._event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        framed = (part + struct.pack("<I", self._checksum(part)) for part in (length, data))
        self._file.append(b"".join(framed))
