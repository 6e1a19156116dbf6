"""Training on two nodes of a real Slurm: whatever happens to a job, its results equal an uninterrupted one's."""

import os
import re
import signal
import sys

import pytest
from killed_runs import PYTHONPATH, REPOSITORY, losses, output
from slurm_cluster import NODES, until

pytestmark = pytest.mark.slurm

BATCH = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-task=0"]


def options(runs, workdir):
    return f"--config={runs.folder / 'config.py'}", f"--workdir={workdir}"


def environment(runs):
    return {
        "PYTHON": sys.executable,
        "PYTHONPATH": PYTHONPATH,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(runs.folder / "xla"),
    }


@pytest.fixture(scope="module")
def srun(slurm, runs):
    """Starts the training command on two nodes; its output goes into the run's folder."""

    def start(workdir):
        workdir.mkdir(exist_ok=True)
        output = f"--output={workdir / 'output.txt'}", "--open-mode=append"
        command = [sys.executable, "-m", "gptjax.train", *options(runs, workdir)]
        return slurm.popen("srun", "--nodes=2", "--ntasks=2", *output, *command, **environment(runs))

    return start


@pytest.fixture(scope="module")
def unbroken(runs, srun):
    workdir = runs.folder / "unbroken"
    assert srun(workdir).wait(300) == 0, output(workdir)
    found = losses(workdir)
    assert list(found) == list(range(1, runs.steps + 1))
    assert all(f"waiting for {whom} at {NODES[0]}:" in output(workdir) for whom in ("process 0", "1 other process"))
    return found


@pytest.fixture
def batch(slurm, runs, request):
    """Submits the script of examples/ for two nodes; returns (job, workdir)."""
    workdir = runs.folder / request.node.name
    workdir.mkdir()
    script = REPOSITORY / "examples/slurm.sbatch"
    logs = f"--output={workdir / 'output.txt'}"
    job = slurm.run(*BATCH, logs, script, *options(runs, workdir), **environment(runs)).strip()
    yield job, workdir
    slurm.run("scancel", job)


def test_a_killed_task_ends_the_others_and_the_same_command_continues(slurm, runs, srun, unbroken):
    workdir = runs.folder / "killed"
    step = srun(workdir)
    until(lambda: len(losses(workdir)) >= 13)
    job = re.search(r"\d+", slurm.run("squeue", "--noheader", "--format=%i")).group()
    os.kill(slurm.tasks(job)[1], signal.SIGKILL)
    assert step.wait(60) != 0
    assert re.search(r"error: process 1 on \S+ is gone", output(workdir))
    assert "Traceback" not in output(workdir) and "stack trace" not in output(workdir)
    assert srun(workdir).wait(300) == 0, output(workdir)
    assert "resumed from step" in output(workdir) and losses(workdir) == unbroken


def finish(slurm, job, workdir, unbroken):
    until(lambda: slurm.has_ended(job))
    assert slurm.state(job) == "COMPLETED", output(workdir)
    assert "resumed from step" in output(workdir) and losses(workdir) == unbroken


def test_a_requeued_job_continues(slurm, batch, unbroken):
    job, workdir = batch
    until(lambda: len(losses(workdir)) >= 13)
    slurm.run("scontrol", "requeue", job)
    finish(slurm, job, workdir, unbroken)


def test_a_job_near_its_time_limit_saves_and_requeues_itself(slurm, batch, unbroken):
    job, workdir = batch
    until(lambda: len(losses(workdir)) >= 13)
    slurm.run("scancel", "--batch", "--signal=TERM", job)  # as --signal=B:TERM@300 does
    finish(slurm, job, workdir, unbroken)
    assert "stopped by SIGTERM at step" in output(workdir)


def test_a_preempted_job_saves_and_continues_when_nodes_are_free_again(slurm, batch, unbroken):
    job, workdir = batch
    until(lambda: len(losses(workdir)) >= 13)
    slurm.run("srun", "--partition=high", "--nodes=2", "--exclusive", "true")
    assert "stopped by SIGTERM at step" in output(workdir)
    finish(slurm, job, workdir, unbroken)
