"""Many processes as one: joining them, and reading only the rows of a batch that a process needs."""

from __future__ import annotations

import os
from collections.abc import Mapping

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from gptjax.config import ConfigError
from gptjax.parallel.sharding import batch_sharding

_COORDINATOR = flags.DEFINE_string("coordinator", None, "Several processes: HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several processes: how many.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several processes: which one this is, from 0.", lower_bound=0)


def initialize() -> None:
    """Joins the processes of a run: from the flags, or from SLURM's variables when srun started several tasks.

    Must come before the first use of a device. A single process does nothing. Under SLURM JAX takes one process a GPU.
    A script that sbatch runs without srun is a single process, whatever the number of tasks in the job.

    Raises:
      ConfigError: only some of the three flags are given, or they contradict each other.
    """
    given = {
        "--coordinator": _COORDINATOR.value,
        "--num_processes": _NUM_PROCESSES.value,
        "--process_id": _PROCESS_ID.value,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        if "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            jax.distributed.initialize()
        return
    if missing:
        raise ConfigError(f"several processes need all of {', '.join(given)}; missing: {', '.join(missing)}")
    if _PROCESS_ID.value >= _NUM_PROCESSES.value:
        raise ConfigError(f"--process_id = {_PROCESS_ID.value}: must be below --num_processes = {_NUM_PROCESSES.value}")
    host, _, port = _COORDINATOR.value.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--coordinator = {_COORDINATOR.value!r}: expected HOST:PORT, such as 10.0.0.1:1234")
    if _NUM_PROCESSES.value > 1:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)


def local_rows(mesh: Mesh, batch_size: int, accumulation_steps: int) -> np.ndarray:
    """Numbers of the rows of a global batch that this process's devices hold, in the order of the global batch.

    A batch of B rows is A micro-batches of B/A rows one after the other. Each micro-batch is split over the mesh's
    batch axes; with tensor axes that cross processes, several processes read the same rows.
    """
    micro = batch_size // accumulation_steps
    sharding = batch_sharding(mesh, 1)
    index_map = sharding.addressable_devices_indices_map((accumulation_steps, micro))
    columns = sorted({column for _, rows in index_map.values() for column in range(*rows.indices(micro))})
    return np.array([a * micro + column for a in range(accumulation_steps) for column in columns])


def put_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray], rows: np.ndarray, batch_size: int, accumulation_steps: int
) -> dict[str, jax.Array]:
    """This process's rows → global arrays [A, B/A, …] on the mesh, without waiting for the copies.

    Args:
      batch: arrays whose first axis follows `rows`.
      rows: as `local_rows` gave them.
    """
    micro = batch_size // accumulation_steps
    sharding = batch_sharding(mesh, 1)
    position = {int(row): i for i, row in enumerate(rows)}

    def put(local: np.ndarray) -> jax.Array:
        def block(index) -> np.ndarray:
            steps, columns = range(*index[0].indices(accumulation_steps)), range(*index[1].indices(micro))
            wanted = [position[a * micro + column] for a in steps for column in columns]
            return local[wanted].reshape(len(steps), len(columns), *local.shape[1:])

        shape = (accumulation_steps, micro, *local.shape[1:])
        return jax.make_array_from_callback(shape, sharding, block)

    return {name: put(array) for name, array in batch.items()}
