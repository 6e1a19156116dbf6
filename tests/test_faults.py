"""Faults in one of four processes of a run: what the others do, and that the same command then continues exactly.

All are real runs of `gptjax train` and run in `make test-faults`. test_resume.py has a few that always run.
"""

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from killed_runs import Runs, end, losses, output, remains, saving, training, wait_for
from prepared_folders import write_prepared
from waiting import PATIENCE

from gptjax.training.checkpoints.format import TEMPORARY
from gptjax.training.checkpoints.loading import load_params, saved_steps
from gptjax.training.records.writers import read_metrics

pytestmark = pytest.mark.exhaustive

MINUTE = 60.0  # seconds
FOUR = [["--config.mesh.data=2", "--config.mesh.fsdp=2"]] * 4
ALL_STAY = "--config.checkpoint.keep_latest=99"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def unbroken(runs):
    workdir = runs.folder / "unbroken"
    runs.finish_several(workdir, *([*each, ALL_STAY] for each in FOUR))
    assert list(losses(workdir)) == list(range(1, runs.steps + 1))
    return workdir


def assert_same_run(workdir, unbroken):
    """Compares losses and parameters bit for bit, and checks that no processes or temporary files remain."""
    assert losses(workdir) == losses(unbroken)
    (params, metadata), (expected, _) = load_params(workdir), load_params(unbroken)
    assert metadata["step"] == max(losses(unbroken))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), jax.device_get(expected))
    assert not [name for name in remains(workdir) if not name.startswith("unreadable-")]


def assert_ended(workdir, processes, victim, sentence, status=1):
    """All processes but the victim end within a minute with one sentence that names it, and leave no process behind."""
    others = [number for number in range(len(processes)) if number != victim]
    started = time.monotonic()
    assert [processes[number].wait(MINUTE) for number in others] == [status] * len(others), output(workdir)
    print(f"\n{sentence}: all have ended after {time.monotonic() - started:.1f} s", flush=True)
    for number in others:
        said = re.findall("^error: .*", output(workdir, number), re.MULTILINE)
        assert len(said) == 1 and re.search(f"process {victim}\\b.*{sentence}", said[0]), output(workdir, number)
        assert "Traceback" not in output(workdir, number)
    assert_none_left_behind(workdir, processes[victim])


def assert_none_left_behind(workdir, *known):
    """Data loaders and relays notice within moments that their parent has ended."""
    deadline = time.monotonic() + PATIENCE / 10
    while living := left_behind(workdir, *known):
        assert time.monotonic() < deadline, living
        time.sleep(0.05)


def left_behind(workdir, *known):
    """Processes of the run that are still alive, such as data loaders, except `known` ones and their children."""
    known, living = {process.pid for process in known}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment, status = (folder / "environ").read_bytes(), (folder / "status").read_text()
        except OSError:
            continue
        parent = int(re.search(r"PPid:\s*(\d+)", status)[1])
        if f"WORKDIR_OF_TEST={workdir}".encode() in environment.split(b"\0") and not {int(folder.name), parent} & known:
            living.append((folder / "cmdline").read_text() if (folder / "cmdline").exists() else folder.name)
    return living


def without_output(workdir):
    """Removes what earlier processes have written, so that only the next ones are read."""
    for path in workdir.glob("output*.txt"):
        path.unlink()


def start_four(runs, workdir, *more, environments=None):
    marked = {
        number: {"WORKDIR_OF_TEST": str(workdir)} | dict((environments or {}).get(number, {})) for number in range(4)
    }
    return runs.start_several(workdir, *([*each, *more] for each in FOUR), environments=marked)


# --- Killed, stopped and hanging processes, and signals --------------------------------------------------------------


def killed(runs, workdir, victim, moment):
    """Kills the process during a step, or while it writes its part of a checkpoint."""
    for attempt in range(10):
        without_output(workdir)
        processes = start_four(runs, workdir)
        try:
            moment(workdir, processes[victim], random.Random(attempt))
            processes[victim].kill()
            inside = any(TEMPORARY in name for name in remains(workdir))
            assert processes[victim].wait() == -signal.SIGKILL, "the run ended first"
            assert_ended(workdir, processes, victim, "is gone: it was killed")
        finally:
            end(processes)
        if inside or moment is not saving:
            return
    pytest.fail("no kill happened during a save")


def stopped(runs, workdir, victim):
    processes = start_four(runs, workdir, "--heartbeat_timeout=8")
    try:
        wait_for_steps(6, workdir, processes)  # a checkpoint is saved every 4 steps
        processes[victim].send_signal(signal.SIGSTOP)
        assert_ended(workdir, processes, victim, r"has been silent for 8 s \(--heartbeat_timeout\)")
        processes[victim].send_signal(signal.SIGCONT)  # it wakes up after the others have ended, and must not continue
        assert processes[victim].wait(MINUTE) == 1, output(workdir, victim)
        assert "has been silent for 8 s" in output(workdir, victim)
        assert_none_left_behind(workdir)
    finally:
        end(processes)


def hung_in_its_data_worker(runs, workdir, victim):
    processes = start_four(runs, workdir, "--config.data.workers=1", "--batch_timeout=60")
    try:
        wait_for_steps(1, workdir, processes)
        (worker,) = data_workers(processes[victim])
        os.kill(worker, signal.SIGSTOP)
        # After the batches loaded in advance have been used.
        wait_for(lambda: processes[1].poll() is not None, processes[1])
        assert_ended(workdir, processes, victim, r"at batch \d+, the others up to batch \d+")
        assert processes[victim].wait(MINUTE) == 1
        assert_none_left_behind(workdir)
    finally:
        end(processes)


def signalled_while_starting(runs, workdir, receiver):
    """A signal to one process ends all of them with one sentence, even while the step is compiled."""
    processes, before = start_four(runs, workdir), losses(workdir)
    try:
        wait_for(lambda: "waiting for" in output(workdir, receiver) and settings_shown(workdir), processes[0])
        processes[receiver].send_signal(signal.SIGTERM)
        sentence = "was stopped by SIGTERM before the first step of this start: nothing new was saved"
        assert_ended(workdir, processes, receiver, sentence, status=128 + signal.SIGTERM)
        assert processes[receiver].wait(MINUTE) == 128 + signal.SIGTERM
        said = output(workdir, receiver)
        assert said.count(sentence.removeprefix("was ")) == 1 and "Traceback" not in said, said
    finally:
        end(processes)
    assert losses(workdir) == before


def signalled(runs, workdir, receiver):
    """A signal to one process makes all of them save the same step."""
    processes = start_four(runs, workdir)
    try:
        wait_for_steps(2, workdir, processes)
        processes[receiver].send_signal(signal.SIGTERM)
        assert [process.wait(PATIENCE) for process in processes] == [0] * 4, output(workdir)
        assert_none_left_behind(workdir)
    finally:
        end(processes)
    step = max(losses(workdir))
    assert step < runs.steps and f"stopped by SIGTERM at step {step}, checkpoint saved" in output(workdir, 0)
    assert load_params(workdir)[1]["step"] == step


@pytest.mark.parametrize(
    "faults",
    [
        [(killed, 0, training), (killed, 2, training), (killed, 0, saving), (killed, 3, saving)],
        [(stopped, 0), (stopped, 3)],
        [(hung_in_its_data_worker, 0), (hung_in_its_data_worker, 2)],
        [(signalled_while_starting, 1), (signalled, 2), (signalled, 0), (signalled_while_starting, 0)],
    ],
    ids=["killed", "stopped", "hung", "signalled"],
)
def test_one_fault_after_another(runs, unbroken, faults):
    workdir = runs.folder / faults[0][0].__name__
    for fault, *arguments in faults:
        fault(runs, workdir, *arguments)
        without_output(workdir)
    saved = saved_steps(workdir)  # none, if each fault came before the first
    runs.finish_several(workdir, *FOUR)
    assert not saved or f"resumed from step {max(saved)}" in output(workdir, 0)
    assert_same_run(workdir, unbroken)


def wait_for_steps(count, workdir, processes):
    """Waits until this start has written rows for this many steps."""
    before = max(losses(workdir), default=0)
    wait_for(lambda: max(losses(workdir), default=0) >= before + count, processes[0], pause=0.002)


def settings_shown(workdir):
    return "hash of all settings" in output(workdir, 0)


def data_workers(process):
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    return [pid for pid in pids if b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()]


# --- Another number of processes -------------------------------------------------------------------------------------


def test_a_run_continues_with_fewer_and_with_more_processes(runs, unbroken):
    """Each process has one device. Sums over four, two and one devices differ in the last bit, so losses are only
    nearly equal."""
    workdir = runs.folder / "fewer and more"
    one, two = [["--config.mesh.data=1"]], [["--config.mesh.data=1", "--config.mesh.fsdp=2"]] * 2
    for overrides, steps in ((FOUR, 5), (two, 11), (one, 18), (FOUR, None)):
        if steps is None:
            runs.finish_several(workdir, *overrides)
            continue
        processes = runs.start_several(workdir, *overrides)
        try:
            wait_for(lambda steps=steps: len(losses(workdir)) >= steps, processes[0], pause=0.002)
            processes[-1].send_signal(signal.SIGTERM)
            assert [process.wait(PATIENCE) for process in processes] == [0] * len(overrides), output(workdir)
        finally:
            end(processes)
    assert output(workdir, 0).count("resumed from step") == 3
    found, expected = losses(workdir), losses(unbroken)
    assert list(found) == list(expected)
    for step, row in found.items():
        assert row == pytest.approx(expected[step], rel=2e-4), f"step {step}"


# --- Bad numbers, damaged checkpoints --------------------------------------------------------------------------------


def test_a_nan_in_the_rows_of_one_process_stops_all_at_that_step(runs):
    workdir = runs.folder / "nan"
    processes = start_four(runs, workdir, environments={2: {"INJECTED_FAULTS": "nan 7"}})
    try:
        assert [process.wait(PATIENCE) for process in processes] == [1] * 4, output(workdir)
    finally:
        end(processes)
    for number in range(4):
        assert re.search(r"error: .*step 7: loss \(nan\).* is not finite", output(workdir, number)), output(workdir)
    assert load_params(workdir)[1]["step"] == 4 and max(losses(workdir)) == 6


def test_a_nan_in_the_rows_of_one_process_is_skipped_by_all(runs, unbroken):
    workdir, skip = runs.folder / "skipped", "--config.training.on_nonfinite=skip"
    processes = start_four(runs, workdir, skip, environments={1: {"INJECTED_FAULTS": "nan 7"}})
    try:
        assert [process.wait(PATIENCE) for process in processes] == [0] * 4, output(workdir)
    finally:
        end(processes)
    assert "step 7: update dropped (loss nan" in output(workdir, 0)
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows if row["train/skipped"]] == [7] and rows[6]["train/skipped"] == 1
    found, expected = losses(workdir), losses(unbroken)
    assert list(found) == list(expected)
    assert all(found[step] == expected[step] for step in range(1, 7)) and found[8] != expected[8]
    assert all(np.isfinite(row["train/loss"]) for step, row in found.items() if step != 7)


def truncate(checkpoint):
    for path in (checkpoint / "optimizer").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            os.truncate(path, path.stat().st_size // 2)


def flip_bits(checkpoint):
    for path in (checkpoint / "params").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)


@pytest.fixture(scope="module")
def five_checkpoints(runs, unbroken):
    """The uninterrupted run as if it had been killed after step 20, with three checkpoints damaged in different
    ways."""
    workdir = shutil.copytree(unbroken, runs.folder / "five checkpoints")
    without_output(workdir)
    for folder in (workdir / "checkpoints").iterdir():
        if folder.name not in ("4", "8", "12", "16", "20"):
            shutil.rmtree(folder)
    truncate(workdir / "checkpoints/16")
    flip_bits(workdir / "checkpoints/12")
    return workdir


@pytest.mark.parametrize("mesh", [dict(data=2, fsdp=2), dict(data=4)], ids=str)
def test_all_processes_skip_damaged_checkpoints_together(runs, unbroken, five_checkpoints, mesh):
    """In this order: only process 2 does not see the newest checkpoint; one is cut off; one has flipped bits; and only
    process 2 reads flipped bits."""
    workdir = shutil.copytree(five_checkpoints, runs.folder / f"damaged {len(mesh)}")
    overrides = [[ALL_STAY, *(f"--config.mesh.{axis}={size}" for axis, size in mesh.items())]]
    runs.finish_several(workdir, *overrides * 4, environments={2: {"INJECTED_FAULTS": "unseen 20, flipped 8"}})
    assert "resumed from step 4" in output(workdir, 0)
    for number in range(4):
        found = re.findall(r"CANNOT READ A CHECKPOINT: checkpoint .*?/checkpoints/(\d+) is", output(workdir, number))
        assert set(found) == {"20", "16", "12", "8"}, output(workdir, number)
    assert [f"unreadable-{step}" for step in (12, 16, 20, 8)] == remains(workdir)
    if "fsdp" in mesh:
        assert_same_run(workdir, unbroken)
    else:
        expected = losses(unbroken)
        assert all(row == pytest.approx(expected[step], rel=2e-4) for step, row in losses(workdir).items())


@pytest.mark.parametrize(("victim", "fault"), [(0, "unfinished"), (2, "unwritable")])
def test_a_save_that_one_process_cannot_write_is_given_up_by_all_and_the_run_continues(runs, unbroken, victim, fault):
    workdir, others = runs.folder / fault, [number for number in range(4) if number != victim]
    processes = start_four(runs, workdir, environments={victim: {"INJECTED_FAULTS": f"{fault} 8"}})
    try:
        wait_for(lambda: max(losses(workdir), default=0) >= 8, processes[0])
        started = time.monotonic()
        wait_for(lambda: all("was not saved" in output(workdir, each) for each in others), processes[0])
        assert time.monotonic() - started < MINUTE
        assert [process.wait(PATIENCE) for process in processes] == [0] * 4, output(workdir)
    finally:
        end(processes)
    sentence = (
        f"step 8 was not saved: process {victim} on .* could not write its part: .*; the newest is that of step 4"
    )
    for number in others:
        assert len(re.findall(sentence, output(workdir, number))) == 1, output(workdir, number)
    assert_same_run(workdir, unbroken)


# --- Refused ---------------------------------------------------------------------------------------------------------


def other_config(runs):
    return (
        "--config.optimizer.learning_rate=0.5",
        r"config.optimizer.learning_rate = \S+ in process 0, 0.5 in process 2",
    )


def other_data(runs):
    ids = list(range(200)) * 2
    other = write_prepared(runs.folder / "other data", train=[ids], validation=[ids])
    return f"--config.data.path={other}", r"data.sources.0.tokens = \d+ in process 0, 400 in process 2"


@pytest.mark.parametrize("difference", [other_config, other_data])
def test_differing_settings_are_refused_by_all_with_both_values(runs, difference):
    workdir = runs.folder / difference.__name__
    override, sentence = difference(runs)
    processes = runs.start_several(workdir, *([*each, *([override] * (i == 2))] for i, each in enumerate(FOUR)))
    assert_refused(workdir, processes, f"^error: {sentence}")


def test_a_mesh_that_does_not_divide_is_refused_by_all(runs):
    workdir, mesh = runs.folder / "mesh", ["--config.mesh.fsdp=3", "--config.mesh.data=-1"]
    sentence = r"mesh \(data = -1, fsdp = 3\): the fixed axes need a multiple of 3 devices, and this run has 4"
    assert_refused(workdir, runs.start_several(workdir, *[mesh] * 4), f"^error: .*{sentence}")


def assert_refused(workdir, processes, sentence):
    try:
        assert [process.wait(PATIENCE) for process in processes] == [2] * 4, output(workdir)
    finally:
        end(processes)
    for number in range(4):
        said = output(workdir, number)
        assert len(re.findall(sentence, said, re.MULTILINE)) == 1 and "Traceback" not in said, said
    assert not losses(workdir)
