"""Moves batches to the devices of several processes, and arrays back: each process moves only what its devices hold."""

from __future__ import annotations

import collections
import json
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed as runtime
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gptjax.parallel import members
from gptjax.parallel.sharding import batch_sharding


def local_rows(mesh: Mesh, batch_size: int, accumulation_steps: int) -> np.ndarray:
    """Indices of the rows of a global batch that this process's devices hold, in the order of the global batch.

    A batch of B rows consists of A micro-batches of B/A rows, one after the other. Each micro-batch is split over the
    mesh's batch axes; if a tensor axis spans several processes, they read the same rows.
    """
    micro = batch_size // accumulation_steps
    sharding = batch_sharding(mesh, 1)
    index_map = sharding.addressable_devices_indices_map((accumulation_steps, micro))
    indices = [index for index in index_map.values() if index is not None]
    columns = sorted({column for _, rows in indices for column in range(*rows.indices(micro))})
    return np.array([a * micro + column for a in range(accumulation_steps) for column in columns])


def put_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray], rows: np.ndarray, batch_size: int, accumulation_steps: int
) -> dict[str, jax.Array]:
    """This process's rows → global arrays [A, B/A, …] on the mesh, without waiting for the copies.

    Args:
      batch: arrays with one row for each of `rows`.
      rows: as returned by `local_rows`.
    """
    members.count_batch()
    micro = batch_size // accumulation_steps
    position = {int(row): i for i, row in enumerate(rows)}

    def put(local: np.ndarray) -> jax.Array:
        def block(index: Any) -> np.ndarray:
            steps, columns = range(*index[0].indices(accumulation_steps)), range(*index[1].indices(micro))
            wanted = [position[a * micro + column] for a in steps for column in columns]
            return local[wanted].reshape(len(steps), len(columns), *local.shape[1:])[:, :, *index[2:]]

        shape = (accumulation_steps, micro, *local.shape[1:])
        sharding = batch_sharding(mesh, 1, local.ndim - 1)
        return jax.make_array_from_callback(shape, sharding, block)

    return {name: put(array) for name, array in batch.items()}


def put_ahead(
    mesh: Mesh,
    batches: Iterable[Mapping[str, np.ndarray]],
    rows: np.ndarray,
    batch_size: int,
    accumulation_steps: int,
    ahead: int,
) -> Iterator[dict[str, jax.Array]]:
    """Puts each of `batches` on the mesh (`put_batch`), up to `ahead` batches before it is used."""
    waiting: collections.deque[dict[str, jax.Array]] = collections.deque()
    for batch in batches:
        waiting.append(put_batch(mesh, batch, rows, batch_size, accumulation_steps))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def fetch(tree: Any) -> Any:
    """Host copies of arrays on the devices of any process; all processes must call this together."""

    def whole(x: jax.Array) -> Any:
        if x.is_fully_addressable or x.is_fully_replicated:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))


def of_process_0(value: Any) -> Any:
    """Returns the value that process 0 passes; all processes must call this together. value: of JSON's types.

    Use it where all processes must act on the same observation: a network file system may show a file to one process
    later than to another.
    """
    if jax.process_count() == 1:
        return value
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    whole = multihost_utils.broadcast_one_to_all(data if jax.process_index() == 0 else np.zeros(size, np.uint8))
    return json.loads(np.asarray(whole).tobytes())


def listen_for_preemption() -> None:
    """Starts JAX's preemption service, which `multihost_utils.reached_preemption_sync_point` needs, and which takes
    SIGTERM over. All processes must call this; `jax.distributed.initialize` does, unless it is told not to."""
    jax.config.update("jax_enable_preemption_service", True)
    runtime.global_state.initialize_preemption_sync_manager()


def smallest(size: int) -> int:
    """The smallest of the sizes in bytes that the processes pass, rounded down to MiB; all must call this together."""
    if jax.process_count() == 1:
        return size
    return int(np.min(multihost_utils.process_allgather(np.int32(size >> 20)))) << 20


def processes_on_this_host() -> int:
    """The number of the run's processes on hosts of this name; all must call this together."""
    if jax.process_count() == 1:
        return 1
    host = np.int32(zlib.crc32(socket.gethostname().encode()) >> 1)
    return int(np.sum(multihost_utils.process_allgather(host) == host))
