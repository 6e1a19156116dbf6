"""Tasks as a SLURM job array, through submitit (or its executors for one machine): pip install 'gptjax[slurm]'."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError, RunError
from gptjax.files import write_aside
from gptjax.json_files import parsed

MOST_JOBS = 1000  # of one array, which is what SLURM allows by default: more tasks than that share jobs
JOBS_FILE = "jobs.json"


class JobTasks:
    """What a job runs: some tasks, one after the other.

    Tasks that were done before a preemption, or the time limit, are not done twice: their markers stand.
    """

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]):
        self._function, self._items = function, list(items)
        self._outcomes: list[Any] = []

    def __call__(self) -> list[Any]:
        while len(self._outcomes) < len(self._items):
            self._outcomes.append(self._function(self._items[len(self._outcomes)]))
        return self._outcomes

    def checkpoint(self):
        """Called by submitit on preemption and before the time limit: what to queue again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmJobs:
    """An executor of submitit jobs. A context manager.

    Args:
      kind: slurm, or submitit's local | debug.
      folder: for submitit's scripts, pickles and logs; seen by all nodes under one path.
      workers: jobs at a time; 0: as many as the queue allows.
      parameters: of submitit, such as timeout_min, cpus_per_task, slurm_partition.

    Raises:
      ConfigError: submitit is not installed, there is no SLURM here, or a parameter is unknown.
    """

    def __init__(self, kind: str, folder: Path, workers: int, parameters: Mapping[str, Any]):
        try:
            import submitit
        except ImportError:
            raise ConfigError("--executor=slurm: needs pip install 'gptjax[slurm]'") from None
        from gptjax.cluster.job_states import cancel, use_job_states  # needs submitit, too

        use_job_states()
        self._submitit, self._cancel = submitit, cancel
        self._folder, self._poll_seconds = folder, 10.0 if kind == "slurm" else 0.1
        if kind == "slurm":
            parameters = {"slurm_array_parallelism": workers or MOST_JOBS, "cpus_per_task": 1, **parameters}
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=kind)
            self._executor.update_parameters(name="gptjax-corpus", **parameters)
        except (RuntimeError, NameError, ValueError, AssertionError) as error:
            raise ConfigError(f"--executor={kind}: {error}") from None
        folder.mkdir(parents=True, exist_ok=True)
        self._cancel_jobs_of_a_lost_driver()

    def __enter__(self) -> SlurmJobs:
        return self

    def __exit__(self, *_) -> None:
        pass

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        each = -(-len(items) // MOST_JOBS)
        starts = range(0, len(items), each)
        errors = self._submitit.core.utils
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(JobTasks(function, items[i : i + each])) for i in starts]
        except (errors.FailedSubmissionError, errors.FailedJobError) as error:
            raise RunError(f"the jobs were not accepted: {error}") from error
        first = dict(zip((job.job_id for job in jobs), starts))
        self._note([job.job_id for job in jobs])
        done: set[str] = set()
        try:
            for job in self._submitit.helpers.as_completed(jobs, poll_frequency=self._poll_seconds):
                done.add(job.job_id)
                start = first[job.job_id]
                try:
                    outcomes = job.result()
                except (errors.UncompletedJobError, errors.FailedJobError):  # lost; or its wrapper failed
                    outcomes = [None] * len(items[start : start + each])
                yield from enumerate(outcomes, start)
        finally:
            for job in jobs:
                if job.job_id not in done:
                    self._cancel(job)
            self._note([])

    def _note(self, ids: list[str]) -> None:
        with write_aside(self._folder / JOBS_FILE) as file:
            file.write(json.dumps(ids).encode())

    def _cancel_jobs_of_a_lost_driver(self) -> None:
        """Its work is done again or found done: two jobs at one task would only waste a core."""
        path = self._folder / JOBS_FILE
        if self._executor.cluster == "slurm" and path.exists():
            remedy = "cancel this command's jobs that are in the queue still, and delete it"
            for job_id in parsed(path.read_bytes(), str(path), remedy, list):
                self._cancel(self._submitit.SlurmJob(self._folder, job_id))
