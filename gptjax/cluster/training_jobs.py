"""Runs each training run of a sweep as a cluster job, through submitit.

On SLURM all runs are one job array. A job that is preempted, or reaches its time limit, saves and is queued again. The
jobs do not need the sweep command: it may be stopped, and the same command later finds the active jobs again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

from gptjax.cluster.job_states import UNKNOWN, cancel
from gptjax.cluster.launch import Command, Launched
from gptjax.cluster.submission import Submission
from gptjax.config import RunError
from gptjax.files.folders import is_held

WEEK = 7 * 24 * 60  # minutes
MOST_TIMEOUTS = 1000  # a run may reach a short time limit many times
UNLIMITED = 10**6  # jobs wait in the queue of the cluster, not here
_AT_WORK = {"READY", "PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED"}


class TrainingJob:
    """The function that a job runs: it starts the training command of one run, whose state is in the run's folder."""

    def __init__(self, command: list[str], workdir: Path):
        self._command, self._workdir = command, workdir

    def __call__(self) -> int:
        """Runs the command and returns its exit status. A failure is not raised; the run's folder shows it."""
        self._launched = Launched(self._command, self._workdir, {})
        signal.signal(signal.SIGTERM, self._terminate)
        try:
            return self._launched.wait()
        except BaseException:  # the job was cancelled; the command has its own session and must be stopped
            self._launched.stop()
            raise

    def _terminate(self, *_: object) -> None:
        """Handles SIGTERM, which SLURM sends on cancellation and, if there is time, before preemption. submitit handles
        only its own signal, SIGUSR2, and would ignore SIGTERM."""
        if _is_preempted(os.environ.get("SLURM_JOB_ID")):
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's handler saves and queues the job again
        else:
            self._launched.stop()

    def checkpoint(self) -> DelayedSubmission:
        """Saves, and returns what to queue again; submitit calls this on preemption and before the time limit."""
        self._launched.finish()
        return DelayedSubmission(TrainingJob(self._command, self._workdir))


def _is_preempted(job_id: str | None) -> bool:
    if job_id is None:
        return False
    command = ["scontrol", "--oneliner", "show", "job", job_id]
    try:
        shown = subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:  # a node without Slurm's commands; a cancellation is assumed, and it saves as well
        return False
    return re.search(r"PreemptTime=\d", shown) is not None


class TrainingJobs:
    """A RunExecutor (sweeping/execute.py) that submits jobs.

    Args:
      kind: slurm | local | debug.
      folder: the folder for submitit's scripts, pickles and logs; all SLURM nodes must see it.
      jobs: jobs at a time; 0: as many as the queue allows on SLURM, otherwise one.
      parameters: parameters of submitit, such as timeout_min, gpus_per_node, slurm_partition.

    Raises:
      ConfigError: submitit does not know a parameter, or there is no SLURM here.
    """

    def __init__(self, kind: str, folder: Path, jobs: int, parameters: Mapping[str, Any]):
        if kind == "slurm" and jobs:
            parameters = {"slurm_array_parallelism": jobs, **parameters}
        if kind == "local":
            parameters = {"timeout_min": WEEK, **parameters}
        self._submission = Submission(kind, folder, "gptjax", parameters, MOST_TIMEOUTS)
        self.detaches = self._submission.is_slurm
        self.slots = UNLIMITED if self.detaches else jobs or 1

    def start(self, runs: Sequence[Command]) -> list[JobHandle]:
        """Submits the runs that have no active job; on SLURM as one array.

        Raises:
          ConfigError: the file with the jobs of an earlier start cannot be read.
          RunError: the cluster does not accept the jobs, or does not answer whether earlier jobs are still active.
        """
        ids = self._submission.read_ids(dict, "the sweep's")  # run → job id
        jobs = {run.name: job for run in runs if (job := self._at_work(ids.get(run.name)))}
        new = [run for run in runs if run.name not in jobs]
        if new:
            submitted = self._submission.submit([TrainingJob(run.command, run.workdir) for run in new])
            jobs |= {run.name: job for run, job in zip(new, submitted)}
        self._submission.write_ids(ids | {name: job.job_id for name, job in jobs.items()})
        return [JobHandle(jobs[run.name], run.workdir) for run in runs]

    def _at_work(self, job_id: str | None) -> submitit.Job | None:
        """Returns the job of an earlier start of the sweep if it is still waiting or running."""
        if not self.detaches or job_id is None:
            return None
        job: Any = self._submission.slurm_job(job_id)
        state = job.watcher.get_state(job_id, mode="force").split()[0]
        if state == UNKNOWN:
            raise RunError(
                f"neither sacct nor squeue reports whether job {job_id} of an earlier start is still active, so no job "
                "is submitted; give the same command again later"
            )
        return job if state in _AT_WORK else None


class JobHandle:
    """A run's job."""

    def __init__(self, job: submitit.Job, workdir: Path):
        self._job, self._workdir = job, workdir

    def ended(self) -> bool:
        """Whether job and command have ended. With submitit's debug executor this call runs the job."""
        return self._job.done() and not is_held(self._workdir)

    def stop(self) -> None:
        cancel(self._job)

    kill = stop
