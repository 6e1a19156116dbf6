"""Where the processes of one run meet: as the flags say, or as SLURM does.

Process 0 listens at an address that all know before they start. Flags name it, or it follows from the variables that
srun sets in each process that it starts.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping

from gptjax.config import ConfigError

_FIRST_PORT = 61440  # for SLURM's jobs: above the ports that systems give to clients


@dataclasses.dataclass(frozen=True)
class Meeting:
    """Where the processes meet, and which one this is.

    Attributes:
      host, port: the address of process 0.
      process: the number of this process, below num_processes.
      devices: numbers of the GPUs that this process takes, among those that it sees; None: all.
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
      startup: the same for a new phase of a process's start, until all have put their first batch on their devices.
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
    """The meeting that these flags describe, or SLURM's variables if srun started several processes; None for one
    process.

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
    """The only task of a node takes all GPUs. Each of several tasks takes its own, unless SLURM shows it only that
    one."""
    alone = "," not in environment.get("SLURM_GTIDS", "")
    bound = "," not in environment.get("CUDA_VISIBLE_DEVICES", ",")
    if alone:
        return None
    return (0,) if bound else (int(environment["SLURM_LOCALID"]),)
