"""The training command from end to end in one process: a run's folder, its figures, and what it refuses."""

import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from prepared_folders import write_prepared

from gptjax import train as command
from gptjax.config import ConfigError, RunError, default, from_json, get
from gptjax.corpus.tokenizer import ByteTokenizer
from gptjax.inference.generate import Generator
from gptjax.sweeping import Sweep, over
from gptjax.sweeping.runs import plan_runs
from gptjax.training.checkpoint import load_for_inference, load_params
from gptjax.training.writers import read_metrics

TEXT = "the quick brown fox jumps over the lazy dog; "


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared folder of one sentence, over and over, in bytes."""
    tokenizer = ByteTokenizer()
    ids = [*tokenizer.encode(TEXT * 40), tokenizer.eos_id]
    return write_prepared(
        tmp_path_factory.mktemp("prepared") / "data", train=[ids] * 4, validation=[ids], tokenizer=tokenizer
    )


@pytest.fixture
def tiny(data):
    def make(**fields):
        config = default()
        config.model.update(num_layers=2, width=32, num_heads=2)
        config.data.update(path=str(data), sequence_length=16)
        config.optimizer.learning_rate = 1e-2
        config.schedule.warmup = "2 steps"
        config.training.update(duration="12 steps", batch_size=8)
        config.mesh.data = 8
        config.checkpoint.every = "6 steps"
        config.evaluation.update(every="6 steps", batches=2)
        config.logging.update(every="1 step", tensorboard=False, plots=False)
        for field, value in fields.items():
            section, name = field.split("__")
            config[section][name] = value
        return config

    return make


def go(config: ConfigDict, workdir):
    """What `main` does after the flags."""
    run = command.settle(config, workdir)
    command.show_settings(run)
    with jax.set_mesh(run.trainer.mesh), command.open_checkpoints(run) as checkpoints:
        state, notes = command.start(run, checkpoints)
        command.train(run, checkpoints, state, notes)
    return read_metrics(workdir / "metrics.jsonl")


def losses(rows):
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def test_a_run_learns_and_leaves_a_complete_folder(tiny, tmp_path, capsys):
    config = tiny(
        logging__plots=True, logging__tensorboard=True, evaluation__sample_every="12 steps", mesh__fsdp=2, mesh__data=4
    )
    rows = go(config, tmp_path)
    found = losses(rows)
    assert list(found) == list(range(1, 13))
    assert found[12] < found[1] - 1
    validation = [row for row in rows if "validation/loss" in row]
    assert [row["step"] for row in validation] == [6, 12]
    # a byte tokenizer has one byte a token: bits per byte are the loss in bits
    np.testing.assert_allclose(
        validation[-1]["validation/bits_per_byte"], validation[-1]["validation/loss"] / np.log(2)
    )
    assert {"tokens_per_second", "step_milliseconds", "mfu", "data_wait_fraction", "device_memory_bytes"} <= set(
        rows[-2]
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "tokenizer.json", "checkpoints", "metrics.jsonl", "tensorboard", "samples", "plots"} <= names
    saved = from_json((tmp_path / "config.json").read_text())
    assert saved.model.vocab_size > 0 and saved.model.attention == "xla" and saved.model.dtype == "float32"
    printed = capsys.readouterr().out
    assert "validation at step 12" in printed and "causal MFU" in printed and "finished" in printed


def test_the_same_command_goes_on_and_then_has_nothing_to_do(tiny, tmp_path, capsys):
    unbroken = go(tiny(training__duration="12 steps", schedule__name="constant"), tmp_path / "a")
    go(tiny(training__duration="6 steps", schedule__name="constant"), tmp_path / "b")
    resumed = go(tiny(training__duration="12 steps", schedule__name="constant"), tmp_path / "b")
    assert losses(resumed) == losses(unbroken)
    assert "resumed from step 6" in capsys.readouterr().out
    go(tiny(training__duration="12 steps", schedule__name="constant"), tmp_path / "b")
    assert "nothing to do" in capsys.readouterr().out


def test_a_warm_start_takes_the_other_runs_parameters(tiny, tmp_path):
    go(tiny(training__duration="6 steps"), tmp_path / "first")
    config = tiny(training__init_from=str(tmp_path / "first"), training__duration="1 step", schedule__warmup="0 steps")
    run = command.settle(config, tmp_path / "second")
    with jax.set_mesh(run.trainer.mesh), command.open_checkpoints(run) as checkpoints:
        state, notes = command.start(run, checkpoints)
    expected, _ = load_params(tmp_path / "first")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), jax.device_get(expected))
    assert state.step == 0 and "step 6" in notes[0] and len(notes) == 1


def test_a_warm_start_wants_the_same_tokenizer_and_tells_of_another_model(tiny, tmp_path):
    go(tiny(training__duration="6 steps"), tmp_path / "first")
    config = tiny(training__init_from=str(tmp_path / "first"), model__rope_theta=5.0)
    run = command.settle(config, tmp_path / "second")
    with jax.set_mesh(run.trainer.mesh), command.open_checkpoints(run) as checkpoints:
        _, notes = command.start(run, checkpoints)
        assert any("model.rope_theta" in note and "5.0" in note for note in notes)
        run.data.tokenizer_hash = "another"
        with pytest.raises(ConfigError, match="another"):
            command.start(run, checkpoints)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing_of_it(tiny, tmp_path):
    config = tiny(optimizer__name="sgd", optimizer__learning_rate=1e30, optimizer__gradient_clip=0.0)
    with pytest.raises(RunError, match=r"step \d+: loss .*on_nonfinite=skip"):
        go(config, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_resumed_run_must_be_the_same_run(tiny, tmp_path):
    go(tiny(training__duration="6 steps"), tmp_path)
    for fields, message in [
        (dict(model__width=64), r"model\.width"),
        (dict(data__sequence_length=8), r"sequence_length"),
        (dict(optimizer__name="lion"), r"optimizer\.name"),
        (dict(training__batch_size=16), r"batch_size"),
    ]:
        with pytest.raises(ConfigError, match=message):
            go(tiny(**fields), tmp_path)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(training__batch_size=4), r"4 rows: must be divisible by the 8 devices"),
        (dict(model__vocab_size=100), r"model\.vocab_size = 100: must not be below the tokenizer's \d+"),
        (dict(mesh__data=16), "is for 16 devices, there are 8"),
        (dict(model__attention="cudnn"), "the platform is cpu"),
        (dict(data__path=""), r"data\.path"),
        (dict(evaluation__sample_every="6 steps", evaluation__sample_prompt="x" * 17), r"its 17 tokens .* = 16"),
        (dict(evaluation__sample_every="6 steps", evaluation__sample_tokens=0), r"sample_tokens = 0"),
        (dict(schedule__warmup="13 steps"), r"schedule\.warmup"),
    ],
)
def test_what_does_not_go_together_fails_before_anything_is_compiled(tiny, tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        command.settle(tiny(**fields), tmp_path)
    assert not list(tmp_path.iterdir())


def test_evaluation_can_be_off(tiny, tmp_path):
    rows = go(tiny(evaluation__every="", training__duration="6 steps"), tmp_path)
    assert not [row for row in rows if "validation/loss" in row]


def test_the_moving_average_is_what_is_evaluated(tiny, tmp_path):
    fast = go(tiny(training__duration="6 steps"), tmp_path / "plain")
    slow = go(tiny(training__duration="6 steps", training__ema_decay=0.99), tmp_path / "ema")
    assert losses(fast) == losses(slow)
    assert slow[-1]["validation/loss"] > fast[-1]["validation/loss"] + 0.5  # it has hardly left the start
    assert json.loads((tmp_path / "ema" / "config.json").read_text())["training"]["ema_decay"] == 0.99


def test_a_run_to_start_from_that_is_not_there_is_told_by_its_field(tiny, tmp_path):
    run = command.settle(tiny(training__init_from=str(tmp_path / "nowhere")), tmp_path / "run")
    with jax.set_mesh(run.trainer.mesh), command.open_checkpoints(run) as checkpoints:
        with pytest.raises(ConfigError, match=r"^training\.init_from = .*nowhere: must be the folder of a run"):
            command.start(run, checkpoints)


IDEAS = """
import jax
import jax.numpy as jnp
import optax

def smooth(gate_BTF, up_BTF):
    return jnp.tanh(gate_BTF) * up_BTF

def triangle(update, run):
    return 1.0 - jnp.abs(2.0 * update / run.total_steps - 1.0)

def signs(config):
    return optax.chain(optax.trace(config.momentum), optax.stateless(lambda u, p: jax.tree.map(jnp.sign, u)))
"""


BASE = """
from gptjax.config import default

def get_config():
    config = default()
    config.data.path = {data!r}
    return config
"""


def test_ones_own_optimizer_schedule_and_activation(tiny, tmp_path, monkeypatch):
    """A researcher's file in the current folder: trained with, gone on with after a break, sampled from, swept over."""
    (tmp_path / "my_ideas.py").write_text(IDEAS)
    monkeypatch.chdir(tmp_path)
    names = {"model.feedforward": "my_ideas:smooth", "schedule.name": "my_ideas:triangle"}
    names["optimizer.name"] = "my_ideas:signs"
    config = tiny(**{field.replace(".", "__"): name for field, name in names.items()})
    workdir = tmp_path / "run"
    rows = {row["step"]: row for row in go(config, workdir) if "train/loss" in row}
    assert [rows[step]["learning_rate"] for step in (3, 6, 12)] == pytest.approx([0.005, 0.01, 0.0])
    assert rows[12]["train/loss"] < rows[1]["train/loss"]
    saved = from_json((workdir / "config.json").read_text())
    assert {field: get(saved, field) for field in names} == names
    params = load_for_inference(workdir)[0]
    assert "gate" in params["layers"]["feedforward"]

    shutil.rmtree(workdir / "checkpoints" / "12")
    again = {row["step"]: row for row in go(config, workdir) if "train/loss" in row}
    assert again[12]["train/loss"] == rows[12]["train/loss"]
    completion = Generator(params, saved, ByteTokenizer()).generate(["the "], max_new_tokens=3)[0]
    assert len(completion.tokens) == 3

    (tmp_path / "base.py").write_text(BASE.format(data=config.data.path))
    sweep = Sweep("base.py", over("optimizer.name", ["adamw", "my_ideas:signs"]))
    runs = plan_runs(sweep, tmp_path / "sweep", {})
    assert [run.config.optimizer.name for run in runs] == ["adamw", "my_ideas:signs"]
    assert all(":" not in run.workdir.name for run in runs)
