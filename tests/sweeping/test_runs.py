"""A sweep becomes checked runs; their states are read from their folders; other settings are refused."""

import fcntl
import json
from pathlib import Path

import jax
import pytest

from gptjax import config as configs
from gptjax import planning
from gptjax.cluster.launch import EXIT_STATUS
from gptjax.config import ConfigError, flatten
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.sweeping.algebra import Point, grid, named, over, seeds
from gptjax.sweeping.definition import load_sweep, override, parse_setting
from gptjax.sweeping.runs import State, folder_name, plan_runs, status_of
from gptjax.tokenizer import ByteTokenizer
from gptjax.training.checkpoints.format import COMMITTED
from gptjax.training.records.writers import JsonLinesWriter

REPOSITORY = Path(__file__).parents[2]
RATE = "optimizer.learning_rate"


def write(run, steps, saved=()):
    """Writes the files of a training run: rows up to a step, and complete checkpoints of the given steps."""
    run.workdir.mkdir(exist_ok=True)
    (run.workdir / "config.json").write_text(configs.to_json(run.config))
    (run.workdir / "metrics.jsonl").unlink(missing_ok=True)
    writer = JsonLinesWriter(run.workdir / "metrics.jsonl")
    for step in range(1, steps + 1):
        writer.write(step, {"train/loss": 5.0 - step / 10})
    writer.close()
    for step in saved:
        (run.workdir / f"checkpoints/{step}").mkdir(parents=True, exist_ok=True)
        (run.workdir / f"checkpoints/{step}/{COMMITTED}").touch()


# --- Planning --------------------------------------------------------------------------------------------------------


def test_settings_are_merged_from_file_sweep_command_line_and_point(plan, config_file, tmp_path):
    runs = plan(grid(over(RATE, [0.25]), seeds(2)), settings={"model.width": 32})
    assert [run.name for run in runs] == ["learning_rate=0.25,seed=0", "learning_rate=0.25,seed=1"]
    assert runs[1].workdir == tmp_path / "learning_rate=0.25,seed=1"
    assert runs[1].settings == {"model.width": 32, RATE: 0.25, "seed": 1}
    assert (runs[1].config.model.width, runs[1].config.optimizer.learning_rate, runs[1].config.seed) == (32, 0.25, 1)
    assert runs[1].total_steps == 20
    assert runs[1].command[1:] == [
        "-m",
        "gptjax.train",
        f"--config={config_file}",
        f"--workdir={runs[1].workdir}",
        "--config.model.width=32",
        "--config.optimizer.learning_rate=0.25",
        "--config.seed=1",
    ]


def test_points_do_not_see_each_others_settings(plan):
    wide, deep = plan(named({"wide": {"model.width": 64, "model.dtype": "bfloat16"}, "deep": {"model.num_layers": 3}}))
    assert (wide.config.model.width, wide.config.model.num_layers, wide.config.model.dtype) == (64, 2, "bfloat16")
    assert (deep.config.model.width, deep.config.model.num_layers, deep.config.model.dtype) == (16, 3, "auto")


@pytest.mark.parametrize("windows", ["contiguous", "packed"])
def test_the_planned_config_equals_the_one_that_training_resolves(plan, windows):
    settings = {"data.windows": windows, "mesh.data": -1, "training.batch_size": 8}
    run = plan(over("model.num_kv_heads", [1]), settings=settings)[0]
    config = override(load_config(run.base), run.settings)
    facts = DataFacts(ByteTokenizer().vocab_size, windows_per_epoch=10)
    trained = flatten(planning.plan(config, facts, jax.devices()).config)
    planned = flatten(run.config)
    left_open = {field for field in planned if planned[field] != trained[field]}
    assert left_open == {"model.dtype", "model.layers", "model.attention", "model.attention_block"}


@pytest.mark.parametrize(
    "points, settings, message",
    [
        ([], {}, "it has no points"),
        (over(RATE, ["fast"]), {}, r"optimizer.learning_rate = 'fast': expected float, got str"),
        (over("model.width", [15]), {}, "model.width = 15: must be divisible by model.num_heads = 2"),
        (over("schedule.warmup", ["3k steps"]), {}, "must fit into the run's 20 steps"),
        (over("data.path", ["nowhere"]), {}, "'nowhere': no such folder"),
        (over("model.vocab_size", [100]), {}, "the size of the tokenizer of data.path"),
        (over(RATE, [0.1]), {RATE: 0.2}, "the sweep itself varies optimizer.learning_rate"),
        ([Point({"seed": 1}, ("a",)), Point({"seed": 2}, ("a",))], {}, "2 runs would have the name 'a'"),
    ],
)
def test_invalid_sweeps_are_refused_before_any_run_starts(plan, tmp_path, points, settings, message):
    with pytest.raises(ConfigError, match=message):
        plan(points, settings)
    assert not list(tmp_path.iterdir())


def test_folder_names_are_plain_and_distinct():
    names = ["data/web=0.7,data/code=0.3", "data-web=0.7,data-code=0.3", "300M tokens", "a*b?[c]", "x" * 300, "x" * 301]
    folders = [folder_name(Point({}, (name,))) for name in names]
    assert len(set(folders)) == len(folders) and all(len(folder) < 200 for folder in folders)
    assert not any(set(folder) & set("/*?[] ") for folder in folders)
    assert folders[1] == names[1] and folders[2].startswith("300M-tokens-")
    assert folder_name(Point()) == "base"


# --- States ----------------------------------------------------------------------------------------------------------


def test_states_follow_from_the_folder(plan):
    run = plan()[0]
    assert status_of(run).state == State.NOT_STARTED
    write(run, steps=0)
    assert status_of(run).state == State.NOT_STARTED
    write(run, steps=7)
    assert (status_of(run).state, status_of(run).step) == (State.PARTLY_DONE, 7)
    write(run, steps=20, saved=[10])  # killed during the last save
    assert status_of(run).state == State.PARTLY_DONE
    (run.workdir / EXIT_STATUS).write_text("1\n")
    assert status_of(run).state == State.FAILED
    (run.workdir / "checkpoints/20").mkdir()  # without the commit mark, so not complete
    assert status_of(run).state == State.FAILED
    write(run, steps=20, saved=[10, 20])
    assert status_of(run).state == State.FINISHED
    assert status_of(run).last("train/loss") == 3.0 and status_of(run).last("validation/loss") is None


def test_a_folder_with_an_active_training_is_running(plan):
    run = plan()[0]
    write(run, steps=20, saved=[20])
    with open(run.workdir / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert status_of(run).state == State.RUNNING
    assert status_of(run).state == State.FINISHED


def test_other_settings_under_the_same_name_are_refused_with_both_values(plan):
    write(plan()[0], steps=20, saved=[20])
    for settings, message in (
        ({"training.duration": "30 steps"}, "training.duration was '20 steps', is now '30 steps'"),
        ({"model.num_kv_heads": 1}, "model.num_kv_heads was 2, is now 1"),
        ({"evaluation.tokens": 1}, "evaluation.tokens was 128, is now 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            status_of(plan(settings=settings)[0])


def test_settings_of_computation_and_display_may_change(plan):
    run = plan()[0]
    write(run, steps=20, saved=[20])
    settled = json.loads(configs.to_json(run.config))
    settled["model"] |= {"dtype": "bfloat16", "attention": "cudnn", "attention_block": 512, "layers": "scan"}
    (run.workdir / "config.json").write_text(json.dumps(settled))
    free = {"mesh.fsdp": 2, "logging.every": "5 steps", "checkpoint.keep_latest": 1, "data.workers": 2}
    assert status_of(plan(settings=free)[0]).state == State.FINISHED
    with pytest.raises(ConfigError, match=r"model.dtype was 'bfloat16', is now 'float32'"):
        status_of(plan(settings={"model.dtype": "float32"})[0])


# --- Files -----------------------------------------------------------------------------------------------------------


def test_a_sweep_file_takes_an_argument(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(
        "from gptjax.sweeping import Sweep, seeds\n"
        "def get_sweep(arg='2'):\n"
        "    return Sweep('configs/depth.py:4', seeds(int(arg)))\n"
    )
    assert len(load_sweep(str(path)).points) == 2 and len(load_sweep(f"{path}:5").points) == 5


def test_command_line_settings_get_the_type_of_their_field():
    assert parse_setting("optimizer.learning_rate=3e-4") == ("optimizer.learning_rate", 3e-4)
    assert parse_setting("training.duration=5 steps") == ("training.duration", "5 steps")
    assert parse_setting("model.tied_embeddings=False") == ("model.tied_embeddings", False)
    assert parse_setting("data.path=a=1,b=2") == ("data.path", "a=1,b=2")
    with pytest.raises(ConfigError, match=r"did you mean model.width"):
        parse_setting("model.wdith=3")
    with pytest.raises(ConfigError, match=r"model.width = 'wide': expected int"):
        parse_setting("model.width=wide")


def test_named_points_reach_the_config(plan):
    run = plan(named({"wide": {"model.width": 64, "model.num_heads": 4}}))[0]
    assert (run.name, run.config.model.width, run.config.model.head_width) == ("wide", 64, 16)


def test_the_sweeps_of_experiments_are_valid(tmp_path, config_file, monkeypatch):
    """Every point of every sweep in the repository gives a valid config; the data are not needed."""
    monkeypatch.chdir(REPOSITORY)
    data = {"data.path": str(config_file.parent / "data"), "model.vocab_size": 2048}
    for text in ("learning_rate_by_width/sweep.py", "adamw_against_muon/sweep.py", "adamw_against_muon/sweep.py:tune"):
        sweep = load_sweep(f"experiments/{text}")
        assert len(plan_runs(sweep, tmp_path, data)) == len(sweep.points) >= 10
