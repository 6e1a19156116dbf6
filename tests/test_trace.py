"""The command that shows which documents a training step read."""

import pytest
from commands import run_command
from prepared_folders import write_prepared
from training_runs import train_run

from gptjax import config as configs
from gptjax.settings import freeze


@pytest.fixture
def run(tmp_path):
    """A run's folder, before its first checkpoint."""
    write_prepared(tmp_path / "data", train=[[*b"the quick brown fox", 2]] * 20)
    made = configs.default()
    made.data.update(path=str(tmp_path / "data"), sequence_length=8)
    made.training.update(duration="10 steps", batch_size=2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(configs.to_json(made))
    return tmp_path / "run"


def test_a_row_is_shown(run):
    shown = run_command("trace", f"--workdir={run}", "--step=3", "--row=1")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"step 3 of 10, row 1 of 2: 8 positions, from {run.parent / 'data'}\n")
    assert " of 20 of a document" in shown.stdout and "this folder does not say where" in shown.stdout


@pytest.mark.parametrize("objective", ["masked", pytest.param("classification", marks=pytest.mark.exhaustive)])
def test_a_row_that_an_objective_rewrites_is_shown(tmp_path, objective):
    """A mask and weights of labels do not change which documents a row reads."""
    labels = ["good", "bad"] if objective == "classification" else None
    documents = [[*b"the quick brown fox", 2]] * 20
    write_prepared(tmp_path / "data", train=documents, validation=documents[:2], labels=labels)
    config = configs.default()
    config.model.update(family="encoder" if labels is None else "classifier", num_layers=1, width=16, num_heads=2)
    config.data.update(path=str(tmp_path / "data"), sequence_length=8)
    config.schedule.warmup = "0 steps"
    config.training.update(objective=objective, duration="2 steps", batch_size=8)
    config.training.class_weights = "balanced" if labels else ""
    config.evaluation.every = ""
    config.checkpoint.every = "2 steps"
    config.logging.update(tensorboard=False, plots=False)
    train_run(freeze(config), tmp_path / "run")
    shown = run_command("trace", f"--workdir={tmp_path / 'run'}", "--step=2", "--row=7")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("step 2 of 2, row 7 of 8: 8 positions, from ")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--step=3"], "--row is missing (see --help)"),
        (["--step=11", "--row=0"], "--step=11: the run has steps 1 to 10"),
        (
            ["--step=1", "--row=0", "--workdir=none"],
            "--workdir=none: must be the folder of a run; there is no such folder",
        ),
        (["--step=1", "--row=0", "--workdir=configs"], "run; this folder has no config.json"),
    ],
)
def test_mistakes(run, flags, message):
    result = run_command("trace", f"--workdir={run}", *flags)
    assert (result.returncode, result.stdout) == (2, "") and message in result.stderr
