"""What became of Slurm jobs: as sacct tells, or squeue where Slurm keeps no accounts.

submitit asks sacct alone. Without accounting it takes every job for one that may still run: it would wait for ever for
a job that was lost, and nobody could tell whether an earlier start's jobs are still in the queue.
"""

from __future__ import annotations

import os
import subprocess
import time

import submitit
from absl import logging
from submitit.slurm.slurm import SlurmInfoWatcher

UNKNOWN = "UNKNOWN"  # neither of the two answers
GONE = "GONE"  # it is not in the queue, and there are no accounts: it has ended, however it did
_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY REVOKED TIMEOUT".split()
)
_FRESH_SECONDS = 10.0  # for so long the queue is taken to be as it was read


class JobStates(SlurmInfoWatcher):
    """submitit's watcher, which also asks squeue."""

    def __init__(self, delay_s: int = 600):
        super().__init__(delay_s=delay_s)
        self._forget_queue()

    def clear(self) -> None:
        super().clear()
        self._forget_queue()

    def get_info(self, job_id: str, mode: str = "standard") -> dict[str, str]:
        """{'State': …, …} of a job; {} where it is not known."""
        info = super().get_info(job_id, mode=mode)
        if info or mode == "cache":
            return info
        state = self._state_in_queue(job_id, 0.1 if mode == "force" else _FRESH_SECONDS)
        return {"JobID": job_id, "State": state} if state else {}

    def _forget_queue(self) -> None:
        self._queue: dict[str, str] | None = None
        self._read_at = float("-inf")
        self._first_asked: dict[str, float] = {}

    def _state_in_queue(self, job_id: str, fresh_seconds: float) -> str | None:
        """None where squeue does not answer."""
        now = time.monotonic()
        # A queue that was read before the job was submitted says nothing of it.
        is_older = self._read_at < self._first_asked.setdefault(job_id, now) and job_id not in (self._queue or {})
        if is_older or now - self._read_at > fresh_seconds:
            self._queue, self._read_at = read_queue(), time.monotonic()
        return None if self._queue is None else self._queue.get(job_id, GONE)


def read_queue() -> dict[str, str] | None:
    """Job id, '17' or '17_3' of an array → state, of one's own jobs in Slurm's memory; None where squeue fails.

    A state that passes into running, such as CONFIGURING, is told as RUNNING, which submitit knows.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i %T"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    queue = dict(line.split() for line in shown.splitlines() if line.strip())
    return {job: state if state in _ENDED or state == "PENDING" else "RUNNING" for job, state in queue.items()}


def cancel(job: submitit.Job) -> None:
    """Asks for a job's end. Where that fails, the job has ended by itself or goes on, which a warning says: no other
    work depends on it."""
    try:
        job.cancel()
    except (OSError, subprocess.SubprocessError) as error:
        logging.warning("job %s cannot be cancelled (%s): it has ended already, or it goes on", job.job_id, error)


def use_job_states() -> None:
    """Makes submitit's Slurm jobs ask here."""
    if not isinstance(submitit.SlurmJob.watcher, JobStates):
        submitit.SlurmJob.watcher = JobStates()
