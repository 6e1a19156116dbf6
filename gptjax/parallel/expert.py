"""Experts divided over the devices of a mesh axis: each device has some of the experts and sees the tokens of all.

Which experts a token chooses is known only while the program runs. So every device gathers the tokens of its group (in
a ring of sends) and computes its experts' outputs for the tokens that chose them. The outputs of all devices are summed
and scattered back. No token is dropped, whatever the router does, and the shapes of arrays do not depend on the router.
The groups of the other axes that split a batch do the same side by side, each with a copy of the experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from gptjax.config import ConfigError
from gptjax.model.mixture_of_experts import EXPERT_MATRICES, Group
from gptjax.parallel.mesh import BATCH_AXES, compiler_axes
from gptjax.settings import Settings

AXIS = "expert"


def check_expert_axis(config: Settings, mesh: Mesh | AbstractMesh) -> None:
    """Raises ConfigError unless there are experts that divide over the devices.

    config: resolved.
    """
    size, experts = mesh.shape[AXIS], config.model.num_experts
    if experts % size or size > max(experts, 1):
        allowed = "must divide it" if experts else "must be 1 without experts; use mesh.data or mesh.fsdp"
        raise ConfigError(f"mesh.expert = {size} with model.num_experts = {experts}: {allowed}")


class ExpertGroup(Group):
    """The devices along the axis, inside of a `shard_map`."""

    def place(self) -> jax.typing.ArrayLike:
        return lax.axis_index(AXIS)

    def gathered(self, x: jax.Array) -> jax.Array:
        return lax.all_gather(x, AXIS, axis=0, tiled=True)

    def summed(self, x: jax.Array) -> jax.Array:
        return lax.psum_scatter(x, AXIS, scatter_dimension=0, tiled=True)


def divided(
    function: Callable, x_BTD: jax.Array, real_BT: jax.Array, weights: dict[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`function`, which is `mixture` of model/mixture_of_experts.py, on each device's own tokens.

    The compiler alone would sort the tokens of all devices together.
    """
    rows, tokens = compiler_axes(BATCH_AXES), compiler_axes(("context",))
    mesh = jax.sharding.get_abstract_mesh()
    if all(mesh.shape[axis] == 1 for axis in (*rows, *tokens)):
        return function(x_BTD, real_BT, weights)

    def local(x_BTD: jax.Array, real_BT: jax.Array, weights: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
        def of_each_device(name: str, weight: jax.Array) -> jax.Array:
            shared = tuple(axis for axis in (*rows, *tokens) if not (axis == AXIS and name in EXPERT_MATRICES))
            return lax.pcast(weight, shared, to="varying")

        weights = {name: of_each_device(name, weight) for name, weight in weights.items()}
        y_BTD, statistics = function(x_BTD, real_BT, weights, ExpertGroup())
        return y_BTD, lax.psum(statistics, tokens) if tokens else statistics

    specs = {name: P(AXIS) if name in EXPERT_MATRICES else P() for name in weights}
    # Matrices are gathered over the other axes here, and so in the type in which they are multiplied.
    weights = {
        name: weight.astype(jnp.result_type(x_BTD)) if name in EXPERT_MATRICES else weight
        for name, weight in weights.items()
    }
    return jax.shard_map(
        local,
        in_specs=(P(rows, tokens), P(rows, tokens), specs),
        out_specs=(P(rows, tokens), P(rows)),
        axis_names={*rows, *tokens},
    )(x_BTD, real_BT, weights)
