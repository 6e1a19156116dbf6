"""However a run is interrupted, the same command goes on to the figures that it would have had."""

import random
import shutil
import signal

import pytest
from killed_runs import Runs, losses, output, remains, wait_for

from gptjax.training.checkpoint_format import TEMPORARY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def unbroken(runs):
    runs.finish(runs.folder / "unbroken")
    found = losses(runs.folder / "unbroken")
    assert list(found) == list(range(1, runs.steps + 1))
    assert "validation/loss" in found[runs.steps] and len({row["train/loss"] for row in found.values()}) == runs.steps
    return found


def test_killed_five_times_the_losses_are_bit_equal(runs, unbroken):
    generator, inside = random.Random(0), 0
    moments = ["training", "saving", "deleting", "saving", "saving"]
    workdir = runs.folder / "killed"
    while moments:
        if runs.kill(workdir, moments[0], generator):
            moments.pop(0)
            inside += any(TEMPORARY in name for name in remains(workdir))
        else:  # it came to its end first
            assert losses(workdir) == unbroken
            workdir = runs.folder / f"killed-{len(moments)}"
    assert inside, "no kill came inside a save"
    runs.finish(workdir)
    assert "resumed from step" in output(workdir)
    assert losses(workdir) == unbroken
    assert not remains(workdir)


def test_a_signal_saves_and_the_run_goes_on_also_on_another_mesh(runs, unbroken):
    workdir = runs.folder / "stopped"
    process = runs.start(workdir)
    try:
        wait_for(lambda: len(losses(workdir)) >= 13, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, output(workdir)
    finally:
        process.kill()
    step = max(losses(workdir))
    assert 13 <= step < runs.steps
    assert f"stopped by SIGTERM at step {step}, saved" in output(workdir)
    assert (workdir / f"checkpoints/{step}").is_dir()

    elsewhere = shutil.copytree(workdir, runs.folder / "elsewhere")
    runs.finish(workdir)
    assert f"resumed from step {step}" in output(workdir)
    assert losses(workdir) == unbroken

    runs.finish(elsewhere, "--config.mesh.fsdp=2", "--config.mesh.tensor=2", devices=4)
    assert f"resumed from step {step}" in output(elsewhere)
    found = losses(elsewhere)
    assert list(found) == list(unbroken)
    for number, row in found.items():
        assert row == pytest.approx(unbroken[number], rel=2e-4), f"step {number}"
