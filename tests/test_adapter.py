"""A run that trains adapters over another run: it resumes exactly, and its adapter is taken out, merged and sampled."""

import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from absl.flags import IllegalFlagValueError
from full_disks import fill_disk
from prepared_folders import write_prepared
from training_runs import losses_and_scores, train_run

from gptjax import adapter, sample
from gptjax import train as train_command
from gptjax.config import ConfigError, RunError, default, validate
from gptjax.interop import adapters
from gptjax.model.families import family_of
from gptjax.runs.start import check_start
from gptjax.settings import freeze
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.loading import load_for_inference, load_params, saved_config
from gptjax.training.checkpoints.run_metadata import BASE

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat and looked at the other cat. "
TOKENIZER = ByteTokenizer()


def config_of(folder, **fields):
    config = default()
    config.model.update(num_layers=2, layers="scan", width=16, num_heads=2, max_positions=32)
    config.data.update(path=str(folder / "text"), sequence_length=32)
    config.schedule.update(name="constant", warmup="0 steps")
    config.training.update(duration="2 steps", batch_size=8)
    config.mesh.update(data=1, fsdp=8)
    config.checkpoint.update(every="2 steps", keep_latest=9)
    config.evaluation.update(every="2 steps", tokens=0)
    config.logging.update(every="1 steps", tensorboard=False, plots=False)
    config.update_from_flattened_dict({"optimizer.learning_rate": 0.01} | fields)
    validate(config)
    return freeze(config)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders: base, another base, and a run that trains adapters over the 8-bit base."""
    folder = tmp_path_factory.mktemp("runs")
    ids = [[*TOKENIZER.encode(TEXT * 2), TOKENIZER.eos_id]] * 16
    write_prepared(folder / "text", train=ids, validation=ids[:2], tokenizer=TOKENIZER)
    for name, seed in (("base", 0), ("other", 1)):
        train_run(config_of(folder, seed=seed), folder / name)
    train_run(lora_config(folder), folder / "lora")
    return folder


def lora_config(folder, **fields):
    settings = {
        "model.lora_rank": 2,
        "model.lora_base": "int8",
        "model.lora_dora": True,
        "model.lora_dropout": 0.1,
        "model.lora_alpha": 2.0,
    }
    settings |= {"training.init_from": str(folder / "base"), "training.duration": "4 steps"}
    settings |= {"optimizer.learning_rate": 0.02, "evaluation.sample_every": "4 steps", "evaluation.sample_tokens": 2}
    return config_of(folder, **settings | fields)


def saved_steps(workdir):
    return [path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]


def begin(config, workdir):
    """The state before the first step, and the notes of the start."""
    run = train_command.open_run(config, workdir)
    with jax.set_mesh(run.mesh), train_command.open_checkpoints(run) as checkpoints:
        check_start(run.plan, run.data, checkpoints)
        state, _, notes = train_command.start(run, checkpoints)
    return state, notes


def run_command(command, capsys, *flags):
    command.flags.parse([command.__name__, *flags])
    command.main([])
    return capsys.readouterr().out


def test_the_checkpoints_of_a_run_share_its_base(runs):
    (shared,) = (runs / "lora" / "checkpoints").glob("frozen-*")
    _, metadata = load_params(runs / "lora")
    assert metadata["frozen"]["folder"] == shared.name
    assert "params/embedding" in metadata["frozen"]["arrays"] and len(saved_steps(runs / "lora")) == 2
    assert not [*(runs / "base" / "checkpoints").glob("frozen-*")]


def test_a_run_learns_adapters_and_resumes_exactly(runs):
    losses, scores = losses_and_scores(runs / "lora")
    assert losses[-1] < losses[0] and len(scores) == 2
    shutil.copytree(runs / "lora", runs / "halves")
    shutil.rmtree(runs / "halves/checkpoints/4")
    train_run(lora_config(runs), runs / "halves")
    assert losses_and_scores(runs / "halves") == (losses, scores)


def test_the_adapter_is_taken_out_merged_and_sampled(runs, capsys):
    expected, config, _ = load_for_inference(runs / "lora")
    assert not config.model.lora_rank
    run_command(adapter, capsys, f"--workdir={runs / 'lora'}", f"--output={runs / 'base/adapters/cats'}")
    run_command(adapter, capsys, f"--workdir={runs / 'lora'}", f"--output={runs / 'merged'}", "--merge")
    merged, _, metadata = load_for_inference(runs / "merged")
    assert metadata["step"] == 4
    jax.tree.map(np.testing.assert_array_equal, merged, expected)

    options = ["--prompt=the", "--temperature=0", "--max_new_tokens=8", "--weights=float32"]

    def sampled(name, *flags):
        file = runs / f"{len(flags)}-{name}.json"
        run_command(sample, capsys, f"--workdir={runs / name}", f"--json={file}", *options, *flags)
        return json.loads(file.read_text())["completions"]

    both = sampled("base", "--adapter=cats", f"--adapter={runs / 'lora'}")
    assert [each["adapter"] for each in both] == ["cats", str(runs / "lora")]
    (plain,), (of_merged,) = sampled("base"), sampled("merged")
    # The adapter was trained over the rounded base, and is now over the exact one.
    for each in both:
        np.testing.assert_allclose(each["logprobs"], both[0]["logprobs"], rtol=1e-6)
        assert np.abs(each["logprobs"][0] - of_merged["logprobs"][0]) < 0.3 * np.abs(
            plain["logprobs"][0] - of_merged["logprobs"][0]
        )
    with pytest.raises(ConfigError, match=r"hash .* only fits the model that it was trained on"):
        sampled("other", f"--adapter={runs / 'base/adapters/cats'}")
    with pytest.raises(ConfigError, match=r"--adapter=dogs: must be a folder, or the name of one in .*adapters"):
        sampled("base", "--adapter=dogs")
    with pytest.raises(ConfigError, match="has an adapter itself"):
        sampled("lora", f"--adapter={runs / 'base/adapters/cats'}")


def test_what_cannot_be_taken_out_or_started_is_refused(runs, capsys, tmp_path):
    with pytest.raises(ConfigError, match=r"model.lora_rank is 0"):
        run_command(adapter, capsys, f"--workdir={runs / 'base'}", f"--output={tmp_path / 'new'}")
    with pytest.raises(ConfigError, match="must be a new or an empty folder"):
        run_command(adapter, capsys, f"--workdir={runs / 'lora'}", f"--output={runs / 'base'}")
    for fields in ({"model.lora_rank": 0, "model.lora_alpha": 16.0}, {"model.lora_alpha": 4.0}):
        plain = {"model.lora_base": "float32", "model.lora_dora": False, "model.lora_dropout": 0.0}
        with pytest.raises(ConfigError, match="that run has adapters"):
            begin(lora_config(runs, **{"training.init_from": str(runs / "lora")}, **plain, **fields), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"model.lora_rank = 2: needs training.init_from"):
        begin(lora_config(runs, **{"training.init_from": ""}), tmp_path / "run")


@pytest.mark.parametrize(("full", "error"), [("config.json", OSError), ("checkpoints", RunError)])
def test_a_merged_run_that_cannot_be_written_fails_and_leaves_nothing(runs, capsys, tmp_path, monkeypatch, full, error):
    fill_disk(monkeypatch, full)
    with pytest.raises(error, match="No space left"):
        run_command(adapter, capsys, f"--workdir={runs / 'lora'}", f"--output={tmp_path / 'merged'}", "--merge")
    assert not list(tmp_path.iterdir())


def test_adapters_of_a_run_are_trained_further(runs, tmp_path):
    state, notes = begin(lora_config(runs, **{"training.init_from": str(runs / "lora")}), tmp_path / "run")
    saved, _ = load_params(runs / "lora", like=state.params)
    jax.tree.map(np.testing.assert_array_equal, state.params, saved)
    assert len(notes) == 1 and notes[0].endswith("lora, step 4")
    assert (tmp_path / "run" / BASE).read_bytes() == (runs / "lora" / BASE).read_bytes()
    assert json.loads((runs / "lora" / BASE).read_text())["step"] == 2


CONFIG = """
from gptjax.config.base_run import start_from_run
from gptjax.config import default

def get_config(run):
    config = default()
    start_from_run(config, run)
    return config
"""


def test_a_config_that_reads_its_base_resumes_without_it(runs, tmp_path, caplog, monkeypatch):
    shutil.copytree(runs / "base", tmp_path / "base")
    (tmp_path / "mine.py").write_text(CONFIG)
    fields = {"data.path": runs / "text", "training.duration": "2 steps", "training.batch_size": 8}
    fields |= {"checkpoint.every": "1 steps", "logging.tensorboard": False, "evaluation.every": "", "mesh.fsdp": 1}

    def given(**more):
        typed = [f"--config.{name}={value}" for name, value in (fields | more).items()]
        config = f"--config={tmp_path}/mine.py:{tmp_path}/base"
        monkeypatch.setattr(sys, "argv", ["train", config, f"--workdir={tmp_path}/run", *typed])
        train_command.flags.parse(sys.argv)
        return freeze(train_command._CONFIG.value)

    train_run(given(), tmp_path / "run")
    shutil.rmtree(tmp_path / "base")
    assert not caplog.records
    resumed = given(**{"training.duration": "3 steps"})
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}/base does not exist any more: the settings are those in {tmp_path}/run"
    run = train_run(resumed, tmp_path / "run")
    assert len(losses_and_scores(tmp_path / "run")[0]) and run.plan.total_steps == 3
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["training"]["init_from"] = "another"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(IllegalFlagValueError, match="there is no such folder"):
        given()


def test_an_adapter_over_a_vocabulary_that_grew_names_the_merge(runs, monkeypatch):
    config = saved_config(runs / "base").model
    bigger = dataclasses.replace(saved_config(runs / "lora").model, vocab_size=config.vocab_size + 2)
    params = family_of(bigger).init_params(jax.random.key(0))
    monkeypatch.setattr(adapters, "adapted_run", lambda path, flag: (bigger, params, {}))
    with pytest.raises(ConfigError, match=r"has grown from 265 to 267 tokens.* --merge"):
        adapters.load_adapter(str(runs / "lora"), str(runs / "base"), config, "")
