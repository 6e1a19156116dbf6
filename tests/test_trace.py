"""The command that shows which documents a training step read."""

import pytest
from commands import run_command
from prepared_folders import write_prepared

from gptjax import config as configs


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
