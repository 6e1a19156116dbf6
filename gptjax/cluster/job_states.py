"""Finds the states of Slurm jobs with sacct, or with squeue if Slurm keeps no accounts.

submitit uses only sacct. Without accounts it assumes that every job may still be running: it would wait forever for a
job that was lost, and could not find out whether jobs of an earlier start are still in the queue.
"""

from __future__ import annotations

import os
import subprocess
import time

import submitit
from absl import logging
from submitit.slurm.slurm import SlurmInfoWatcher

UNKNOWN = "UNKNOWN"  # neither sacct nor squeue answers
GONE = "GONE"  # there are no accounts and the job is not in the queue: it has ended, successfully or not
_ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL OUT_OF_MEMORY REVOKED TIMEOUT".split()
)
_FRESH_SECONDS = 10.0  # seconds for which the queue is not read again


class JobStates(SlurmInfoWatcher):
    """submitit's watcher, extended by squeue."""

    def __init__(self, delay_s: int = 600):
        super().__init__(delay_s=delay_s)
        self._forget_queue()

    def clear(self) -> None:
        super().clear()
        self._forget_queue()

    def get_info(self, job_id: str, mode: str = "standard") -> dict[str, str]:
        """Returns {'State': …, …} of a job, or {} if it is unknown."""
        info = super().get_info(job_id, mode=mode)
        if info or mode == "cache":
            return info
        state = self._state_in_queue(job_id, 0.1 if mode == "force" else _FRESH_SECONDS)
        return {"JobID": job_id, "State": state} if state else {}

    def _forget_queue(self) -> None:
        self._queue: dict[str, str] | None = None
        self._read_at = float("-inf")
        self._first_query: dict[str, float] = {}

    def _state_in_queue(self, job_id: str, fresh_seconds: float) -> str | None:
        """Returns the job's state, or None if squeue does not answer."""
        now = time.monotonic()
        # A queue that was read before the job was submitted does not contain the job.
        is_older = self._read_at < self._first_query.setdefault(job_id, now) and job_id not in (self._queue or {})
        if is_older or now - self._read_at > fresh_seconds:
            self._queue, self._read_at = read_queue(), time.monotonic()
        return None if self._queue is None else self._queue.get(job_id, GONE)


def read_queue() -> dict[str, str] | None:
    """Returns job id ('17', or '17_3' in an array) → state for the user's jobs, or None if squeue fails.

    A state that leads to running, such as CONFIGURING, is returned as RUNNING, which submitit knows.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i %T"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    queue = dict(line.split() for line in shown.splitlines() if line.strip())
    return {job: state if state in _ENDED or state == "PENDING" else "RUNNING" for job, state in queue.items()}


def cancel(job: submitit.Job) -> None:
    """Cancels a job. If that fails, the job has already ended or continues; this is only a warning because no other
    work depends on it."""
    try:
        job.cancel()
    except (OSError, subprocess.SubprocessError) as error:
        logging.warning("job %s cannot be cancelled (%s): it has already ended, or it continues", job.job_id, error)


def use_job_states() -> None:
    """Makes submitit's Slurm jobs use `JobStates`."""
    if not isinstance(submitit.SlurmJob.watcher, JobStates):
        submitit.SlurmJob.watcher = JobStates()
