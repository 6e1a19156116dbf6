"""The address at which the processes of a run meet, from the command's flags or from SLURM.

Process 0 listens at an address that all processes know when they start. Flags name it, or it follows from the
environment variables that srun sets in each process.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping

from gptjax.config import ConfigError

_FIRST_PORT = 61440  # for SLURM's jobs; operating systems assign lower ports to clients


@dataclasses.dataclass(frozen=True)
class Meeting:
    """The address at which the processes meet, and the number of this process.

    Attributes:
      host, port: the address of process 0.
      process: the number of this process, below num_processes.
      devices: the indices of the GPUs that this process uses, among the GPUs that it sees; None: all.
    """

    host: str
    port: int
    num_processes: int
    process: int
    devices: tuple[int, ...] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Limits in seconds.

    Attributes:
      initialization: time for all processes to connect.
      heartbeat: silence after which a process counts as lost.
      batch: time without a new batch on any process's devices, after which the run counts as hanging; 0: no limit.
      startup: time without a new phase of any process's start, after which the run counts as hanging, until all
        processes have put their first batch on their devices; 0: no limit.
    """

    initialization: float = 300.0
    heartbeat: float = 30.0
    batch: float = 1800.0
    startup: float = 3600.0


def find_meeting(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Meeting | None:
    """Returns the meeting that the flags or, if srun started several processes, SLURM's variables describe.

    It is None for a single process.

    A script that sbatch runs without srun is a single process, whatever the number of tasks in the job.

    Raises:
      ConfigError: only some of the three are given, or they contradict each other.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return _slurm_meeting(environment)
    if coordinator is None or num_processes is None or process_id is None:
        raise ConfigError(f"several processes need all of {', '.join(given)}; missing: {', '.join(missing)}")
    if process_id >= num_processes:
        raise ConfigError(f"--process_id={process_id}: must be below --num_processes={num_processes}")
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"--coordinator={coordinator!r}: expected HOST:PORT, such as 10.0.0.1:1234")
    return Meeting(host, int(port), num_processes, process_id) if num_processes > 1 else None


def _slurm_meeting(environment: Mapping[str, str]) -> Meeting | None:
    nodes = environment.get("SLURM_STEP_NODELIST")
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)
    if not nodes or tasks < 2:
        return None
    # The first of 'n1,n2' or 'n[001-012,020]'.
    first = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\]([^,\[]*))?", nodes)
    host = "".join(part or "" for part in first.groups()) if first else ""
    step = int(environment.get("SLURM_STEP_ID") or 0)  # steps of one job may run side by side
    port = _FIRST_PORT + (int(environment["SLURM_JOB_ID"]) * 16 + step) % 4096
    return Meeting(host, port, tasks, int(environment["SLURM_PROCID"]), _slurm_devices(environment))


def _slurm_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """The indices of this task's GPUs: all of them if the node has no other task, otherwise one.

    If SLURM shows each task only its own GPU, that GPU has index 0.
    """
    alone = "," not in environment.get("SLURM_GTIDS", "")
    bound = "," not in environment.get("CUDA_VISIBLE_DEVICES", ",")
    if alone:
        return None
    return (0,) if bound else (int(environment["SLURM_LOCALID"]),)
