"""Training runs as jobs of a cluster, one each, through submitit.

On SLURM all runs are one job array. A job that is preempted, or comes to its time limit, saves and is queued again; the
jobs do not need the sweep: it may be stopped, and the same command later finds those still at work and watches on.
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
from gptjax.folders import is_held

WEEK = 7 * 24 * 60  # minutes
MOST_TIMEOUTS = 1000  # a run may need many turns of a short time limit
UNLIMITED = 10**6  # the queue of the cluster is where jobs wait
_AT_WORK = {"READY", "PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED"}


class TrainingJob:
    """What a job runs: the training command of one run. All state is in the run's folder."""

    def __init__(self, command: list[str], workdir: Path):
        self._command, self._workdir = command, workdir

    def __call__(self) -> int:
        """The command's exit status; it is no exception, for the run's folder tells the rest."""
        self._launched = Launched(self._command, self._workdir, {})
        signal.signal(signal.SIGTERM, self._terminate)
        try:
            return self._launched.wait()
        except BaseException:  # cancelled: the command is in a session of its own
            self._launched.stop()
            raise

    def _terminate(self, *_: object) -> None:
        """SLURM sends SIGTERM before it preempts the job, if there is time, and when it is cancelled; submitit, which
        waits for the signal that it asked for, would pass over both."""
        if _is_preempted(os.environ.get("SLURM_JOB_ID")):
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's: saves, and queues the job again
        else:
            self._launched.stop()

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit on preemption and before the time limit: saves, and says what to queue."""
        self._launched.finish()
        return DelayedSubmission(TrainingJob(self._command, self._workdir))


def _is_preempted(job_id: str | None) -> bool:
    if job_id is None:
        return False
    command = ["scontrol", "--oneliner", "show", "job", job_id]
    try:
        shown = subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:  # a node without Slurm's commands: taken for a cancellation, which saves
        return False
    return re.search(r"PreemptTime=\d", shown) is not None


class TrainingJobs:
    """An executor of training runs (sweeping/execute.py).

    Args:
      kind: slurm | local | debug.
      folder: for submitit's scripts, pickles and logs; on SLURM seen by all nodes.
      jobs: how many at a time; 0: as many as the queue allows (slurm), one (else).
      parameters: of submitit, such as timeout_min, gpus_per_node, slurm_partition.

    Raises:
      ConfigError: a parameter that submitit does not know, or no SLURM here.
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
        """Submits the runs whose jobs are not at work already: on SLURM as one array.

        Raises:
          ConfigError: the note of an earlier start's jobs cannot be read.
          RunError: the cluster refuses, or does not tell whether jobs of an earlier start are still at work.
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
        """The job of an earlier start of the sweep, if it is waiting or running still."""
        if not self.detaches or job_id is None:
            return None
        job: Any = self._submission.slurm_job(job_id)
        state = job.watcher.get_state(job_id, mode="force").split()[0]
        if state == UNKNOWN:
            raise RunError(
                f"neither sacct nor squeue tells whether job {job_id} of an earlier start is still at work, so none is "
                "submitted; the same command tries again"
            )
        return job if state in _AT_WORK else None


class JobHandle:
    """A run's job."""

    def __init__(self, job: submitit.Job, workdir: Path):
        self._job, self._workdir = job, workdir

    def ended(self) -> bool:
        """Whether job and command have ended (submitit's debug executor runs the job in this very call)."""
        return self._job.done() and not is_held(self._workdir)

    def stop(self) -> None:
        cancel(self._job)

    kill = stop
