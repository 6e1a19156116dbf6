"""A sweep as one job array of a real Slurm."""

import csv
import sys

import pytest
from killed_runs import PYTHONPATH, losses
from killed_runs import output as output_of
from slurm_cluster import until

pytestmark = pytest.mark.slurm

SWEEP = """
from gptjax.sweeping import Sweep, over


def get_sweep():
    return Sweep(config={config!r}, points=over("optimizer.learning_rate", {rates}))
"""
RATES = [1e-3, 2e-3, 3e-3]


@pytest.fixture
def sweep(slurm, runs, request):
    """Starts a sweep in its own folder; a second call continues it."""
    folder = runs.folder / request.node.name
    folder.mkdir()
    (folder / "sweep.py").write_text(SWEEP.format(config=str(runs.folder / "config.py"), rates=RATES))

    def start():
        command = [sys.executable, "-m", "gptjax.sweep", folder / "sweep.py", f"--workdir={folder / 'runs'}"]
        environment = {
            "PYTHONPATH": PYTHONPATH,
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(runs.folder / "xla"),
        }
        submitit = "--submitit=slurm_partition=low,timeout_min=30,cpus_per_task=1"
        return slurm.popen(*command, "--executor=slurm", submitit, **environment)

    return folder / "runs", start


def finished(folder):
    with open(folder / "results.csv") as file:
        return {float(row["optimizer.learning_rate"]): row for row in csv.DictReader(file)}


def test_a_sweep_is_one_array_whose_runs_survive_preemption(slurm, runs, sweep):
    folder, start = sweep
    process = start()
    try:
        workdirs = []
        until(lambda: workdirs.extend(path.parent for path in folder.glob("*/metrics.jsonl")) or workdirs)
        until(lambda: len(losses(workdirs[0])) >= 5)
        slurm.run("srun", "--partition=high", "--nodes=2", "--exclusive", "true")
        again = set()  # jobs that are in the queue for the second time

        def ended():
            for job in slurm.run("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split():
                again.add(job)
                slurm.has_ended(job)
            return process.poll() is not None

        until(ended)
        output = process.communicate()[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    outputs = [output_of(path.parent) for path in folder.glob("*/metrics.jsonl")]
    assert again and any("stopped by SIGTERM" in text and "resumed from step" in text for text in outputs), outputs
    assert set(finished(folder)) == set(RATES)
    assert all(list(losses(path.parent)) == list(range(1, runs.steps + 1)) for path in folder.glob("*/metrics.jsonl"))
