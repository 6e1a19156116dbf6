"""Submits jobs through submitit to SLURM, or to its executors for one machine (local, debug)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError, RunError
from gptjax.files import write_aside
from gptjax.files.json_files import parsed

JOBS_FILE = "jobs.json"  # lists the submitted jobs, for a later start of the same command


class Submission:
    """A folder from which jobs are submitted.

    Args:
      kind: slurm | local | debug.
      folder: the folder for submitit's scripts, pickles and logs; all SLURM nodes must see it under the same path.
      name: the name of the jobs.
      parameters: parameters of submitit, such as timeout_min, gpus_per_node, slurm_partition.
      most_timeouts: the maximum number of times that a job is queued again after its time limit; None: submitit's
        default.

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
        from gptjax.cluster.job_states import cancel, use_job_states  # imported late because it needs submitit

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
        """Submits one job per call; on SLURM they form one array.

        Raises:
          RunError: the cluster does not accept the jobs.
        """
        errors = self.submitit.core.utils
        try:
            with self._executor.batch():
                return [self._executor.submit(call) for call in calls]
        except (errors.FailedSubmissionError, errors.FailedJobError) as error:
            raise RunError(f"the jobs were not accepted: {error}") from error

    def write_ids(self, ids: Any) -> None:
        """Writes the ids of jobs as JSON, atomically."""
        with write_aside(self.folder / JOBS_FILE) as file:
            file.write(json.dumps(ids, indent=1).encode())

    def read_ids(self, kind: type, whose: str) -> Any:
        """Reads what `write_ids` wrote; returns an empty `kind` (list or dict) if there is no file.

        Raises:
          ConfigError: the file is damaged; the message says to cancel the jobs of `whose` command.
        """
        path = self.folder / JOBS_FILE
        remedy = f"cancel {whose} jobs that are still in the queue, and delete the file"
        return parsed(path.read_bytes(), str(path), remedy, kind) if path.exists() else kind()

    def slurm_job(self, job_id: str) -> Any:
        """Returns the job of an earlier start."""
        return self.submitit.SlurmJob(self.folder, job_id)
