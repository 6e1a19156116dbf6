"""Runs the tasks of a corpus stage as a job array; needs pip install 'gptjax[slurm]'."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.cluster.submission import Submission

MOST_JOBS = 1000  # jobs in one array, SLURM's default limit; if there are more tasks, several share a job


class TasksOfJob:
    """The function that a job runs: it does some tasks, one after another.

    Tasks that were done before a preemption or the time limit are not done again, because their outcomes are kept.
    """

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]):
        self._function, self._items = function, list(items)
        self._outcomes: list[Any] = []

    def __call__(self) -> list[Any]:
        while len(self._outcomes) < len(self._items):
            self._outcomes.append(self._function(self._items[len(self._outcomes)]))
        return self._outcomes

    def checkpoint(self) -> Any:
        """Returns what to queue again; submitit calls this on preemption and before the time limit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class JobTasks:
    """A TaskExecutor (corpus/engine/run.py) that submits jobs. A context manager.

    Args:
      kind: slurm, or submitit's local | debug.
      folder: the folder for submitit's scripts, pickles and logs.
      workers: jobs at a time; 0: as many as the queue allows.
      parameters: parameters of submitit, such as timeout_min, cpus_per_task, slurm_partition.

    Raises:
      ConfigError: submitit is not installed, there is no SLURM here, or a parameter is unknown.
    """

    def __init__(self, kind: str, folder: Path, workers: int, parameters: Mapping[str, Any]):
        if kind == "slurm":
            parameters = {"slurm_array_parallelism": workers or MOST_JOBS, "cpus_per_task": 1, **parameters}
        self._submission = Submission(kind, folder, "gptjax-corpus", parameters)
        self._poll_seconds = 10.0 if self._submission.is_slurm else 0.1
        self._cancel_jobs_of_a_lost_driver()

    def __enter__(self) -> JobTasks:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        each = -(-len(items) // MOST_JOBS)
        starts = range(0, len(items), each)
        jobs = self._submission.submit([TasksOfJob(function, items[i : i + each]) for i in starts])
        first = dict(zip((job.job_id for job in jobs), starts))
        self._submission.write_ids([job.job_id for job in jobs])
        submitit = self._submission.submitit
        errors = submitit.core.utils
        done: set[str] = set()
        try:
            for job in submitit.helpers.as_completed(jobs, poll_frequency=self._poll_seconds):
                done.add(job.job_id)
                start = first[job.job_id]
                try:
                    outcomes = job.result()
                except (errors.UncompletedJobError, errors.FailedJobError):  # the job was lost, or its wrapper failed
                    outcomes = [None] * len(items[start : start + each])
                yield from enumerate(outcomes, start)
        finally:
            for job in jobs:
                if job.job_id not in done:
                    self._submission.cancel(job)
            self._submission.write_ids([])

    def _cancel_jobs_of_a_lost_driver(self) -> None:
        """Cancels jobs of an earlier start. Their tasks run again, and two jobs for one task would waste a core."""
        if self._submission.is_slurm:
            for job_id in self._submission.read_ids(list, "this command's"):
                self._submission.cancel(self._submission.slurm_job(job_id))
