"""metrics.jsonl reads back exactly and survives kills; TensorBoard gets the same numbers; one process writes."""

import json
import math
import os
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from gptjax.training.writers import FILE_NAME, JsonLinesWriter, MetricsWriter, read_metrics, truncate_after


def write_steps(path, steps):
    writer = JsonLinesWriter(path)
    for step in steps:
        writer.write(step, {"train/loss": 1.0 / (step + 1)})
    writer.close()


def test_floats_read_back_exactly_and_every_line_is_json(tmp_path):
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
    line = (tmp_path / FILE_NAME).read_text()  # not closed: flushed already
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


def test_truncate_drops_later_rows_and_a_half_written_line(tmp_path):
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


def tensorboard_scalars(folder):
    """{(name, step): value} over all event files: records of length, checksum, event, checksum."""
    scalars = {}
    for file in sorted(folder.iterdir()):
        data, offset = file.read_bytes(), 0
        while offset < len(data):
            (length,) = struct.unpack_from("<Q", data, offset)
            event = Event.FromString(data[offset + 12 : offset + 12 + length])
            offset += 12 + length + 4
            scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return scalars


def test_both_get_the_row_and_tensorboard_skips_what_is_no_number(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(3, {"train/loss": jnp.float32(2.5), "mfu": None, "note": "text"})
        writer.write(4, {"train/loss": 2.25})
    assert read_metrics(tmp_path / FILE_NAME)[0] == {"step": 3, "train/loss": 2.5, "mfu": None, "note": "text"}
    assert tensorboard_scalars(tmp_path / "tensorboard") == {("train/loss", 3): 2.5, ("train/loss", 4): 2.25}


def test_tensorboard_is_optional(tmp_path):
    MetricsWriter(tmp_path, tensorboard=False).write(1, {"train/loss": 1.0})
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME]


def test_resuming_goes_on_after_the_restored_step_and_starting_over_begins_empty(tmp_path):
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
