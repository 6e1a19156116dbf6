"""Weights & Biases gets rows, config and samples under one id for all starts, and its failures end no run."""

import struct
import sys
import types

import pytest

from gptjax.config import ConfigError, default
from gptjax.settings import freeze
from gptjax.training.records import weights_and_biases
from gptjax.training.records.writers import FILE_NAME, MetricsWriter, read_metrics


def open_writer(workdir, resume_step=None):
    config = default().unlock()
    config.logging.wandb = "demo"
    return MetricsWriter(workdir, False, resume_step, freeze(config))


def write_run(workdir, resume_step=None):
    with open_writer(workdir, resume_step) as writer:
        for step in range(1 + (resume_step or 0), 4 + (resume_step or 0)):
            writer.write(step, {"train/loss": 1.0 / step, "mfu": 0.5, "memory": None})
        writer.text(step, "sample", "a <b>")


BLOCK = 32768


def records(file):
    """The records of an offline run's file: protobufs in a log in LevelDB's format (a header, then pieces within
    blocks)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, pieces = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
        _, length, kind = struct.unpack_from("<IHB", data, place)
        pieces += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a complete record, or its last piece
            record, pieces = Record.FromString(pieces), b""
            yield record


def test_offline_runs_contain_everything_and_a_resumed_run_keeps_its_id(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs 'gptjax[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_run(tmp_path)
    write_run(tmp_path, resume_step=2)
    wandb.teardown()  # its process writes asynchronously
    first, second = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: len(str(file)))
    run_id = (tmp_path / weights_and_biases.RUN_ID).read_text()
    assert first.name == second.name == f"run-{run_id}.wandb"
    for file, steps in ((first, [1, 2, 3]), (second, [3, 4, 5])):
        found = list(records(file))
        (run,) = [record.run for record in found if record.HasField("run")]
        assert (run.project, run.run_id, run.display_name) == ("demo", run_id, tmp_path.name)
        assert any("optimizer.learning_rate" in (item.key, *item.nested_key) for item in run.config.update)
        rows = [record.history for record in found if record.HasField("history")]
        items = [{item.key or item.nested_key[0]: item.value_json for item in row.item} for row in rows]
        assert [row.step.num for row in rows] == steps
        assert [float(item["train/loss"]) for item in items] == [1.0 / step for step in steps]
        assert all(float(item["speed/mfu"]) == 0.5 for item in items) and "sample" in items[-1]


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_its_failure_is_logged_once_and_the_run_continues(tmp_path, monkeypatch, broken):
    def fail(*_, **__):
        raise RuntimeError("no network")

    run = types.SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    module = types.SimpleNamespace(init=lambda **_: run, Settings=lambda **_: None, Html=lambda *_: None)
    setattr(module if broken == "init" else run, broken, fail)
    monkeypatch.setitem(sys.modules, "wandb", module)
    said = []
    monkeypatch.setattr(weights_and_biases.logging, "error", lambda message, *values: said.append(message % values))
    write_run(tmp_path)
    assert len(said) == 1 and "the run continues" in said[0] and "no network" in said[0]
    assert [row["step"] for row in read_metrics(tmp_path / FILE_NAME)] == [1, 2, 3]


def test_every_start_uses_one_id_and_texts_are_escaped(tmp_path, monkeypatch):
    """Also runs if the package is not installed."""
    started, shown = [], []
    run = types.SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    module = types.SimpleNamespace(
        init=lambda **fields: started.append(fields) or run, Settings=lambda **_: None, Html=shown.append
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    write_run(tmp_path)
    write_run(tmp_path, resume_step=2)
    first, second = started
    assert first["id"] == second["id"] == (tmp_path / weights_and_biases.RUN_ID).read_text()
    assert first["resume"] == "allow" and first["project"] == "demo" and first["name"] == tmp_path.name
    assert first["config"]["optimizer.learning_rate"] == default().optimizer.learning_rate
    assert shown == ["<pre>a &lt;b&gt;</pre>"] * 2


def test_a_missing_package_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"logging.wandb = 'demo': needs the package wandb"):
        open_writer(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()
