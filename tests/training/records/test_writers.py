"""metrics.jsonl is read back exactly; TensorBoard gets the same numbers; both survive kills and full disks."""

import errno
import io
import json
import math
import os
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from waiting import PATIENCE

from gptjax.config import default
from gptjax.settings import freeze
from gptjax.training.records import history, patient_file
from gptjax.training.records.tensorboard import TensorBoardWriter
from gptjax.training.records.writers import (
    FILE_NAME,
    JsonLinesWriter,
    MetricsWriter,
    read_metrics,
    truncate_after,
)


def write_steps(path, steps):
    writer = JsonLinesWriter(path)
    for step in steps:
        writer.write(step, {"train/loss": 1.0 / (step + 1)})
    writer.close()


def test_floats_are_read_back_exactly_and_every_line_is_json(tmp_path):
    row = {
        "python": 0.1 + 0.2,
        "tiny": 5e-324,
        "float32": jnp.float32(0.1),
        "numpy": np.float64(1 / 3),
        "bfloat16": jnp.bfloat16(0.3),
        "tokens": np.int64(2**60),
        "nan": math.nan,
        "inf": jnp.float32(jnp.inf),
        "minus": -math.inf,
        "mfu": None,
    }
    writer = JsonLinesWriter(tmp_path / FILE_NAME)
    writer.write(7, row)
    line = (tmp_path / FILE_NAME).read_text()  # not closed, but already flushed
    assert line.endswith("\n") and line.count("\n") == 1
    reject = lambda name: pytest.fail(f"{name} is not JSON")  # noqa: E731
    assert json.loads(line, parse_constant=reject)["nan"] == "NaN"
    (read,) = read_metrics(tmp_path / FILE_NAME)
    assert math.isnan(read.pop("nan"))
    assert read == {
        "step": 7,
        "python": 0.1 + 0.2,
        "tiny": 5e-324,
        "float32": float(np.float32(0.1)),
        "numpy": 1 / 3,
        "bfloat16": float(jnp.bfloat16(0.3)),
        "tokens": 2**60,
        "inf": math.inf,
        "minus": -math.inf,
        "mfu": None,
    }


def test_only_a_newline_ends_a_row(tmp_path):
    """A run's history, which is read as metrics are, has texts as they are."""
    texts = [f"one{end}two" for end in ("\u2028", "\u2029", "\x85")]
    for step, text in enumerate(texts):
        history.record_start(tmp_path, freeze(default()), step, data=text)
    assert [(row["step"], row["data"]) for row in read_metrics(tmp_path / history.FILE_NAME)] == [*enumerate(texts)]


def test_truncate_drops_later_rows_and_an_incomplete_line(tmp_path):
    path = tmp_path / FILE_NAME
    write_steps(path, range(10))
    before = path.read_text().splitlines(keepends=True)
    with open(path, "a") as file:
        file.write('{"step": 10, "train/lo')
    assert [row["step"] for row in read_metrics(path)] == list(range(10))
    assert truncate_after(path, 6) == 3
    assert path.read_text() == "".join(before[:7])
    write_steps(path, [7])
    assert [row["step"] for row in read_metrics(path)] == list(range(8))
    assert truncate_after(tmp_path / "missing.jsonl", 3) == 0


def test_truncate_keeps_nonfinite_values(tmp_path):
    writer = JsonLinesWriter(tmp_path / FILE_NAME)
    writer.write(1, {"train/loss": math.inf})
    truncate_after(tmp_path / FILE_NAME, 1)
    assert read_metrics(tmp_path / FILE_NAME) == [{"step": 1, "train/loss": math.inf}]


def test_truncate_killed_before_the_move_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / FILE_NAME
    write_steps(path, range(5))
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        truncate_after(path, 2)
    assert path.read_bytes() == before


def tensorboard_events(folder):
    """All events of all event files. A record has length, checksum, event and checksum."""
    events = []
    for file in sorted(folder.iterdir()):
        data, offset = file.read_bytes(), 0
        while offset < len(data):
            (length,) = struct.unpack_from("<Q", data, offset)
            end = offset + 12 + length
            for start, stop in [(offset, offset + 8), (offset + 12, end)]:
                assert struct.unpack_from("<I", data, stop) == (masked_crc32c(data[start:stop]),)
            events.append(Event.FromString(data[offset + 12 : end]))
            offset = end + 4
    return events


def tensorboard_scalars(folder):
    """{(name, step): value} over all event files."""
    return {
        (value.tag, event.step): value.simple_value
        for event in tensorboard_events(folder)
        for value in event.summary.value
    }


def test_both_get_the_row_but_tensorboard_only_numbers(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(3, {"train/loss": jnp.float32(2.5), "mfu": None, "note": "text"})
        writer.write(4, {"train/loss": 2.25})
    assert read_metrics(tmp_path / FILE_NAME)[0] == {"step": 3, "train/loss": 2.5, "mfu": None, "note": "text"}
    assert tensorboard_scalars(tmp_path / "tensorboard") == {("train/loss", 3): 2.5, ("train/loss", 4): 2.25}


def test_tensorboard_gets_the_version_and_the_step_of_a_resume(tmp_path):
    with MetricsWriter(tmp_path, resume_step=5) as writer:
        writer.write(6, {"train/loss": 1.0})
    version, start, row = tensorboard_events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2" and row.step == 6
    assert (start.step, start.session_log.status) == (6, start.session_log.START)


def test_tensorboard_is_optional(tmp_path):
    MetricsWriter(tmp_path, tensorboard=False).write(1, {"train/loss": 1.0})
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME]


def test_resuming_continues_after_the_restored_step_and_starting_over_begins_empty(tmp_path):
    for resume_step, steps in [(None, range(1, 9)), (5, range(6, 8))]:
        with MetricsWriter(tmp_path, tensorboard=False, resume_step=resume_step) as writer:
            for step in steps:
                writer.write(step, {"train/loss": 1.0})
    assert [row["step"] for row in read_metrics(tmp_path / FILE_NAME)] == list(range(1, 8))
    MetricsWriter(tmp_path, tensorboard=False).close()
    assert read_metrics(tmp_path / FILE_NAME) == []


def test_only_process_zero_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with MetricsWriter(tmp_path / "run") as writer:
        writer.write(1, {"train/loss": 1.0})
    assert not (tmp_path / "run").exists()


# --- Full disks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """A disk that takes `room` more bytes. Like a real disk, it accepts part of a write before it refuses the next
    one."""

    class Disk(io.FileIO):
        room = 10**9

        def __init__(self, path, mode, buffering):
            assert buffering == 0
            super().__init__(path, mode)

        def write(self, data):
            if data and not Disk.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = super().write(bytes(data[: Disk.room]))
            Disk.room -= written
            return written

    monkeypatch.setattr(patient_file, "open", Disk, raising=False)
    return Disk


@pytest.fixture
def errors(monkeypatch):
    """The logged errors."""
    messages = []
    monkeypatch.setattr(patient_file.logging, "error", lambda message, *values: messages.append(message % values))
    return messages


def contents(path):
    """Rows of a metrics.jsonl, or scalars of the event files in a folder."""
    return tensorboard_scalars(path) if path.is_dir() else read_metrics(path)


def row_of(step):
    return {"train/loss": 1.0 / (1 + step)}


@pytest.mark.parametrize(("make", "name"), [(JsonLinesWriter, FILE_NAME), (TensorBoardWriter, "tensorboard")])
@pytest.mark.parametrize("room", [0, 1, 17, 60])
def test_rows_wait_for_disk_space_and_none_is_lost_or_cut(tmp_path, disk, errors, make, name, room):
    writer, undisturbed = make(tmp_path / name), make(tmp_path / f"undisturbed-{name}")
    for step in range(10):
        undisturbed.write(step, row_of(step))
    for step in range(10):
        if step in (3, 7):
            disk.room = room
        if step == 5:
            disk.room = 10**9
        writer.write(step, row_of(step))
    assert len(errors) == 2 and name in errors[0] and "No space left" in errors[0]  # one per outage
    disk.room = 10**9
    writer.close()
    assert contents(tmp_path / name) == contents(tmp_path / f"undisturbed-{name}")
    assert len(errors) == 2


def test_a_row_cut_off_by_a_full_disk_is_not_read(tmp_path, disk, errors):
    writer = JsonLinesWriter(tmp_path / FILE_NAME)
    writer.write(0, row_of(0))
    disk.room = 12
    writer.write(1, row_of(1))
    writer.write(2, row_of(2))
    assert (tmp_path / FILE_NAME).read_text().endswith('\n{"step": 1, ')
    assert [row["step"] for row in read_metrics(tmp_path / FILE_NAME)] == [0]
    writer.close()
    assert "lost" in errors[-1] and len(errors) == 2


LIMITED = """
import resource, sys
from gptjax.training.records.writers import MetricsWriter

limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with MetricsWriter(sys.argv[1]) as writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit))
    for step in range(500):
        writer.write(step, {"train/loss": 1.0 / (1 + step), "learning_rate": 1e-3})
    if sys.argv[2] == "room again":
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
"""


@pytest.mark.parametrize("ending", ["room again", "still full"])
def test_a_real_file_size_limit_neither_hangs_nor_ends_the_run(tmp_path, ending):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), ending], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot write") == 2 and "Traceback" not in done.stderr
    rows = read_metrics(tmp_path / FILE_NAME)
    if ending == "room again":
        assert [row["step"] for row in rows] == list(range(500))
        assert len(tensorboard_scalars(tmp_path / "tensorboard")) == 1000
    else:
        assert 10 < len(rows) < 100 and done.stderr.count("lost") == 2
