"""When the gradients of micro-batches are summed over devices.

With `data` alone, each device has all parameters. It adds up the gradients of its own rows over all micro-batches, and
the devices sum their gradients once per step. The partitioner by itself would do that after each micro-batch.

Where parameters are split over `fsdp`, the gradients of each micro-batch are scattered as soon as they are computed.
Whole gradients, kept on each device until the end of the step, would take the memory that the split saves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

AXIS = "data"


def on_each_replica(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turns `function(replica, params, batch [A, B, …], *others)` into a function without the first argument.

    If every device of the current mesh has all parameters, each calls the function with its own number and its own rows
    of each micro-batch, and the results are summed. Otherwise the function is called once, as replica 0, with the whole
    batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    replicas = mesh.shape.get(AXIS, 1)
    if replicas == 1 or mesh.size > replicas:
        return lambda *arguments: function(0, *arguments)

    def local(params: Any, batch: Any, *others: Any) -> Any:
        return jax.lax.psum(function(jax.lax.axis_index(AXIS), params, batch, *others), AXIS)

    def on_all(params: Any, batch: Any, *others: Any) -> Any:
        in_specs = (P(), P(None, AXIS), *(P() for _ in others))
        # Varying types need not be checked: no gradient passes through this `shard_map`, and its only outputs are sums.
        return jax.shard_map(local, in_specs=in_specs, out_specs=P(), check_vma=False)(params, batch, *others)

    return on_all
