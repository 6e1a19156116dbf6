"""Many processes as one: joining them, and moving between them and the host only what is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gptjax.config import ConfigError
from gptjax.parallel.sharding import batch_sharding


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run: as the flags of these names say, or SLURM's variables where srun started several.

    Must come before the first use of a device. A single process does nothing. Under SLURM JAX takes one process a GPU.
    A script that sbatch runs without srun is a single process, whatever the number of tasks in the job.

    Raises:
      ConfigError: only some of the three are given, or they contradict each other.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        if "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            jax.distributed.initialize()
        return
    if missing:
        raise ConfigError(f"several processes need all of {', '.join(given)}; missing: {', '.join(missing)}")
    if process_id >= num_processes:
        raise ConfigError(f"--process_id = {process_id}: must be below --num_processes = {num_processes}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--coordinator = {coordinator!r}: expected HOST:PORT, such as 10.0.0.1:1234")
    if num_processes > 1:
        jax.distributed.initialize(coordinator, num_processes, process_id)


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


def fetch(tree):
    """Host copies of arrays that lie on any process's devices; all processes must ask together."""

    def whole(x: jax.Array):
        if x.is_fully_addressable or x.is_fully_replicated:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))
