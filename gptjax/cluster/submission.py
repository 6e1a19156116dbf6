"""Work given to submitit: SLURM, or its executors for one machine (local, debug). What tasks and commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError, RunError
from gptjax.files import write_aside
from gptjax.json_files import parsed

JOBS_FILE = "jobs.json"  # which jobs were submitted, for a later start of the same command


class Submission:
    """A folder from which jobs are submitted.

    Args:
      kind: slurm | local | debug.
      folder: for submitit's scripts, pickles and logs; on SLURM all nodes must see it under one path.
      name: of the jobs.
      parameters: of submitit, such as timeout_min, gpus_per_node, slurm_partition.
      most_timeouts: how often a job may be queued again after its time limit; None: submitit's default.

    Raises:
      ConfigError: submitit is not installed, there is no SLURM here, or a parameter is unknown.
    """

    def __init__(
        self, kind: str, folder: Path, name: str, parameters: Mapping[str, Any], most_timeouts: int | None = None
    ):
        try:
            import submitit
        except ImportError:
            raise ConfigError(f"--executor={kind}: needs pip install 'gptjax[slurm]'") from None
        from gptjax.cluster.job_states import cancel, use_job_states  # needs submitit, too

        use_job_states()
        self.submitit, self.cancel = submitit, cancel
        self.is_slurm = kind == "slurm"
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        limits = {} if most_timeouts is None else {"slurm_max_num_timeout": most_timeouts}
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=kind, **limits)
            self._executor.update_parameters(name=name, **parameters)
        except (RuntimeError, NameError, ValueError, AssertionError) as error:
            raise ConfigError(f"--executor={kind}: {error}") from None

    def submit(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """One job for each call; on SLURM all of them are one array.

        Raises:
          RunError: the cluster does not accept them.
        """
        errors = self.submitit.core.utils
        try:
            with self._executor.batch():
                return [self._executor.submit(call) for call in calls]
        except (errors.FailedSubmissionError, errors.FailedJobError) as error:
            raise RunError(f"the jobs were not accepted: {error}") from error

    def write_ids(self, ids: Any) -> None:
        """Keeps the ids of jobs (JSON), whole or not at all."""
        with write_aside(self.folder / JOBS_FILE) as file:
            file.write(json.dumps(ids, indent=1).encode())

    def read_ids(self, kind: type, whose: str) -> Any:
        """What `write_ids` kept, a `kind` (list or dict); an empty one where there is nothing.

        Raises:
          ConfigError: the file is damaged; says to cancel the jobs of whom it is (`whose`).
        """
        path = self.folder / JOBS_FILE
        remedy = f"cancel {whose} jobs that are in the queue still, and delete it"
        return parsed(path.read_bytes(), str(path), remedy, kind) if path.exists() else kind()

    def slurm_job(self, job_id: str) -> Any:
        """The job of an earlier start."""
        return self.submitit.SlurmJob(self.folder, job_id)
