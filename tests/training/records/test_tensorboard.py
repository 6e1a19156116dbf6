"""TensorBoard's own reader finds metrics in groups, the config as text and as hyperparameters, and samples."""

import math

import pytest

from gptjax.config import default, flatten
from gptjax.settings import freeze
from gptjax.training.records.writers import MetricsWriter

SAMPLE = "def f(x):\n    **not bold**\n\x1b[31m\ud800"
ROW = {"train/loss": 2.5, "mfu": 0.25, "learning_rate": 1e-3, "muon_learning_rate": 0.02, "note": "text", "wait": None}


@pytest.fixture
def reader(tmp_path):
    """A run's folder as `tensorboard --logdir` reads it."""
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs 'gptjax[tensorboard]'"
    )
    with MetricsWriter(tmp_path, config=freeze(default())) as writer:
        writer.write(3, ROW)
        writer.write(4, ROW | {"validation/loss": math.inf})
        writer.text(4, "sample", SAMPLE)
    reader = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    return reader


def test_metrics_are_in_groups(reader):
    tags = ["train/loss", "speed/mfu", "optimizer/learning_rate", "optimizer/muon_learning_rate", "validation/loss"]
    assert sorted(reader.Tags()["scalars"]) == sorted(tags)
    assert [(event.step, event.value) for event in reader.Scalars("speed/mfu")] == [(3, 0.25), (4, 0.25)]


@pytest.mark.parametrize("resume_step, shown", [(2, [(1, 1.0), (2, 1.0), (3, 9.0)]), (None, [(3, 9.0)])])
def test_steps_that_a_resumed_run_repeats_are_shown_once(tmp_path, resume_step, shown):
    """None: the first start was killed before its first checkpoint."""
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs 'gptjax[tensorboard]'"
    )
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 5):
            writer.write(step, {"train/loss": 1.0})
    (older,) = (tmp_path / "tensorboard").iterdir()
    older.rename(older.with_name(older.name.replace("tfevents.", "tfevents.0")))  # created in another second
    with MetricsWriter(tmp_path, resume_step=resume_step) as writer:
        writer.write(3, {"train/loss": 9.0})
    reader = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert [(event.step, event.value) for event in reader.Scalars("train/loss")] == shown


def test_samples_and_the_config_are_shown_as_unformatted_text(reader):
    (sample,) = reader.Tensors("sample/text_summary")
    lines = sample.tensor_proto.string_val[0].decode().splitlines()
    assert sample.step == 4 and lines[:2] == ["    def f(x):", "        **not bold**"]
    assert all(line.startswith("    ") for line in lines) and lines[2].endswith("\\ud800")
    (config,) = reader.Tensors("config/text_summary")
    shown = config.tensor_proto.string_val[0].decode()
    assert all(f"    {field} = {value!r}\n" in shown for field, value in flatten(default()).items())


def test_the_config_is_shown_as_hyperparameters(reader):
    plugin_data = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    content = {
        name: plugin_data.HParamsPluginData.FromString(reader.SummaryMetadata(f"_hparams_/{name}").plugin_data.content)
        for name in ("experiment", "session_start_info")
    }
    hparams = content["session_start_info"].session_start_info.hparams
    assert set(hparams) == set(flatten(default()))
    assert hparams["optimizer.learning_rate"].number_value == default().optimizer.learning_rate
    assert hparams["optimizer.name"].string_value == "adamw" and hparams["logging.plots"].bool_value is True
    metrics = [info.name.tag for info in content["experiment"].experiment.metric_infos]
    assert metrics[0] == "validation/loss"
