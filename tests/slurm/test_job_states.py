"""The states of waiting, running and ended jobs as squeue reports them, in a real Slurm without accounting."""

import ast
import sys

import pytest
from killed_runs import REPOSITORY
from slurm_cluster import until

pytestmark = pytest.mark.slurm

ASK = """
from gptjax.cluster.job_states import JobStates
states = JobStates()
print({job: (states.get_state(job, mode="force"), states.is_done(job)) for job in %r})
"""


def test_the_queue_gives_the_states_that_accounting_would(slurm, tmp_path):
    submitted = slurm.output(
        *("sbatch", "--parsable", "--partition=low", "--array=0-2%2", "--cpus-per-task=1", f"--chdir={tmp_path}"),
        "--wrap=sleep 600",
    ).strip()
    jobs = [f"{submitted}_{number}" for number in range(3)]

    def states_of(jobs):
        shown = slurm.output(sys.executable, "-c", ASK % jobs, PYTHONPATH=str(REPOSITORY))
        return ast.literal_eval(shown.splitlines()[-1])

    until(lambda: slurm.state(jobs[1]) == "RUNNING")
    at_work = {jobs[0]: ("RUNNING", False), jobs[1]: ("RUNNING", False), jobs[2]: ("PENDING", False)}
    assert states_of([*jobs, "999999"]) == {**at_work, "999999": ("GONE", True)}
    slurm.output("scancel", submitted)
    until(lambda: slurm.state(jobs[0]) == "CANCELLED")
    assert states_of(jobs[:1]) == {jobs[0]: ("CANCELLED", True)}
