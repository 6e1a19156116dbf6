"""After any interruption, the same command continues the run to the results of an uninterrupted run."""

import json
import os
import pty
import random
import re
import select
import shutil
import signal

import pytest
from killed_runs import Runs, losses, output, remains, wait_for
from prepared_folders import write_prepared
from waiting import PATIENCE

from gptjax.training.checkpoints.format import TEMPORARY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"), steps=40)


@pytest.fixture(scope="module")
def unbroken(runs):
    runs.finish(runs.folder / "unbroken")
    found = losses(runs.folder / "unbroken")
    assert list(found) == list(range(1, runs.steps + 1))
    assert "validation/loss" in found[runs.steps] and len({row["train/loss"] for row in found.values()}) == runs.steps
    return found


@pytest.mark.parametrize(
    "moments",
    [
        ["saving", "deleting"],
        pytest.param(["starting", *["saving", "deleting", "training"] * 3], marks=pytest.mark.exhaustive),
    ],
    ids=len,
)
def test_after_repeated_kills_the_losses_are_bit_equal(runs, unbroken, moments):
    generator, inside, moments = random.Random(0), 0, [*moments]
    workdir = runs.folder / f"killed {len(moments)} times"
    while moments:
        if runs.kill(workdir, moments[0], generator):
            moments.pop(0)
            inside += any(TEMPORARY in name for name in remains(workdir))
        else:  # the run ended first
            assert losses(workdir) == unbroken
            workdir = workdir.with_name(f"{workdir.name}, then {len(moments)}")
    assert inside, "no kill happened during a save"
    runs.finish(workdir)
    assert "resumed from step" in output(workdir)
    assert losses(workdir) == unbroken
    assert not remains(workdir)


def test_a_run_continues_after_its_console_closes_also_on_another_mesh(runs, unbroken):
    """A closing terminal makes the run save and stop; a closed pipe does not affect the run."""
    workdir = runs.folder / "hung up"
    leader, terminal = pty.openpty()
    process = runs.start(workdir, console=terminal)
    os.close(terminal)
    try:
        while len(losses(workdir)) < 13 and process.poll() is None:
            if select.select([leader], [], [], 0.05)[0]:
                os.read(leader, 1 << 16)
        os.close(leader)  # from now on, writing fails
        process.send_signal(signal.SIGHUP)  # as the system would if this were the terminal of the process's session
        assert process.wait(PATIENCE) == 0, losses(workdir)
    finally:
        process.kill()
    step = max(losses(workdir))
    assert 13 <= step < runs.steps and (workdir / f"checkpoints/{step}").is_dir()
    elsewhere = shutil.copytree(workdir, runs.folder / "elsewhere")

    reader, pipe = os.pipe()
    process = runs.start(workdir, console=pipe)
    os.close(pipe)
    os.read(reader, 1)
    os.close(reader)
    try:
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
    assert losses(workdir) == unbroken

    runs.finish(elsewhere, "--config.mesh.fsdp=2", "--config.mesh.tensor=2", devices=4)
    assert f"resumed from step {step}" in output(elsewhere)
    found = losses(elsewhere)
    assert list(found) == list(unbroken)
    for number, row in found.items():
        assert row == pytest.approx(unbroken[number], rel=2e-4), f"step {number}"


def test_a_run_of_several_processes_continues_after_one_is_killed(runs, unbroken):
    """The others end by themselves. The same command then reaches the results of one uninterrupted process."""
    elsewhere = [f"--config.data.path={shutil.copytree(runs.folder / 'data', runs.folder / 'same data')}"]
    workdir = runs.folder / "several"
    processes = runs.start_several(workdir, [], elsewhere)
    wait_for(lambda: len(losses(workdir)) >= 9, processes[0], pause=0.005)
    processes[1].kill()
    assert processes[0].wait(PATIENCE) == 1, output(workdir)
    assert "error: process 1 on" in output(workdir) and "Traceback" not in output(workdir)
    processes = runs.start_several(workdir, [], elsewhere)
    assert [process.wait(PATIENCE) for process in processes] == [0, 0], output(workdir)
    assert "resumed from step" in output(workdir)
    found = losses(workdir)
    assert list(found) == list(unbroken)
    for number, row in found.items():
        assert row == pytest.approx(unbroken[number], rel=2e-4), f"step {number}"


def test_all_name_a_process_whose_file_system_hangs(runs):
    dead = shutil.copytree(runs.folder / "data", runs.folder / "dead")
    (dead / "manifest.json").unlink()
    os.mkfifo(dead / "manifest.json")  # opening it waits forever
    workdir, limit = runs.folder / "never begun", "--startup_timeout=6"
    processes = runs.start_several(workdir, [limit], [limit, f"--config.data.path={dead}"])
    assert [process.wait(PATIENCE) for process in processes] == [1, 1], output(workdir)
    sentence = "error: process 1 on .*: no progress for 6 s while opening the data, and the others wait"
    assert len(re.findall(sentence, output(workdir))) == 2 and "Traceback" not in output(workdir)


def test_processes_with_different_data_never_train(runs):
    manifest = json.loads((runs.folder / "data/manifest.json").read_text())
    ids = list(range(200)) * 2
    other = write_prepared(runs.folder / "other data", train=[ids], validation=[ids])
    workdir = runs.folder / "other"
    processes = runs.start_several(workdir, [], [f"--config.data.path={other}"])
    assert [process.wait(60) for process in processes] == [2, 2], output(workdir)
    tokens = manifest["splits"]["train"]["tokens"]
    assert output(workdir).count(f"data.sources.0.tokens = {tokens} in process 0, {len(ids)} in process 1") == 2
    assert not losses(workdir)
