"""Experts divided over the mesh axis `expert`: each device has some of the experts, and tokens are sent to them.

`ring`: every device gathers the tokens of its group (in a ring of sends) and computes its experts' outputs for the
tokens that chose them. The outputs of all devices are summed and scattered back. No token is dropped, whatever the
router chooses, and the shapes of arrays do not depend on its choice.

`all_to_all`: every device sends each token to the devices of the experts that it chose, and gets the results back.
The array that a device sends to each of the others needs a fixed size, which follows from `model.expert_capacity`.
(Without a capacity, all tokens may choose the same device. There would have to be room for all of them, and the ring
sends no more than that. `jax.lax.ragged_all_to_all` sends only the chosen tokens, but does not run on CPUs.)

With n devices, the ring sends a token n - 1 times in each direction, and all_to_all sends it k · capacity · (n - 1) / n
times. `auto` is therefore all_to_all if k · capacity < n. With eight of 128 experts per token on eight devices, the
ring is cheaper.

Along the other axes that split a batch, each group of devices does the same with its own copy of the experts. Inside a
pipeline, the backward pass computes the experts' forward pass again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from gptjax.config import ConfigError
from gptjax.model.mixture_of_experts import Group, capacity, expert_outputs, feedforward, is_of_experts, places
from gptjax.model.precision import PRODUCT
from gptjax.parallel.mesh import BATCH_AXES, compiler_axes
from gptjax.parallel.nested import as_one
from gptjax.settings import ModelSettings, Settings

AXIS, CONTEXT, PIPELINE = "expert", "context", "pipeline"


def check_expert_axis(config: Settings, mesh: Mesh | AbstractMesh) -> None:
    """Raises ConfigError unless there are experts that divide over the devices.

    config: resolved.
    """
    size, experts = mesh.shape[AXIS], config.model.num_experts
    if experts % size or size > max(experts, 1):
        fitting = ", ".join(str(count) for count in range(1, experts + 1) if experts % count == 0)
        allowed = f"must divide it ({fitting})" if experts else "must be 1 without experts; use mesh.data or mesh.fsdp"
        raise ConfigError(f"mesh.expert = {size} with model.num_experts = {experts}: {allowed}")
    exchange = config.mesh.expert_exchange
    if size == 1 and exchange != "auto":
        raise ConfigError(f"mesh.expert_exchange = {exchange!r}: must be 'auto' where mesh.expert is 1")
    if exchange == "all_to_all" and not config.model.expert_capacity:
        raise ConfigError(
            "mesh.expert_exchange = 'all_to_all' with model.expert_capacity = 0: needs a capacity; or use 'ring'"
        )


def way_of(wanted: str, size: int, model: ModelSettings) -> str:
    """'ring' or 'all_to_all': `mesh.expert_exchange`, with auto resolved to the one that sends fewer bytes between
    `size` devices."""
    if wanted != "auto":
        return wanted
    sent = model.experts_per_token * model.expert_capacity
    return "all_to_all" if 0 < sent < size else "ring"


@dataclasses.dataclass(frozen=True)
class ExpertGroup(Group):
    """The devices along the axis `expert`, inside a `shard_map`.

    Attributes:
      exchange: `mesh.expert_exchange`.
    """

    exchange: str
    divides_rows: bool

    def earlier(self, count_BE: jax.Array) -> jax.typing.ArrayLike:
        if not self.divides_rows:
            return 0
        counts_cBE = lax.all_gather(count_BE, CONTEXT)
        is_earlier_c = jnp.arange(counts_cBE.shape[0]) < lax.axis_index(CONTEXT)
        return jnp.einsum("c,cBE->BE", is_earlier_c.astype(count_BE.dtype), counts_cBE)

    def row_length(self, real_BT: jax.Array) -> int:
        return real_BT.shape[1] * (lax.axis_size(CONTEXT) if self.divides_rows else 1)

    def outputs(
        self, config: ModelSettings, x_BTD: jax.Array, chosen_BTk: jax.Array, share_BTk: jax.Array, weights: dict
    ) -> jax.Array:
        if way_of(self.exchange, lax.axis_size(AXIS), config) == "all_to_all":
            slots = min(capacity(config, self.row_length(chosen_BTk)), x_BTD.shape[1])
            return _by_all_to_all(config, slots, x_BTD, chosen_BTk, share_BTk, weights)
        x_ND, chosen_Nk, share_Nk = (
            lax.all_gather(each.reshape(-1, each.shape[-1]), AXIS, axis=0, tiled=True)
            for each in (x_BTD, chosen_BTk, share_BTk)
        )
        first = lax.axis_index(AXIS) * weights["up"].shape[0]
        y_ND = expert_outputs(config, x_ND, chosen_Nk, share_Nk, weights, first)
        return lax.psum_scatter(y_ND, AXIS, scatter_dimension=0, tiled=True).reshape(x_BTD.shape)


def _by_all_to_all(
    config: ModelSettings, slots: int, x_BTD: jax.Array, chosen_BTk: jax.Array, share_BTk: jax.Array, weights: dict
) -> jax.Array:
    """`Group.outputs`.

    Args:
      slots: C, the maximum number of tokens that an expert takes from one row of this device.
    """
    num_experts, (rows, _, width) = config.num_experts, x_BTD.shape
    row_B11 = jnp.arange(rows)[:, None, None]
    places_BTk, _ = places(chosen_BTk, num_experts)
    at = chosen_BTk, row_B11, places_BTk  # a dropped choice has the index E, which is out of range
    x_BTkD = jnp.broadcast_to(x_BTD[:, :, None], (*chosen_BTk.shape, width))
    x_EBCD = jnp.zeros((num_experts, rows, slots, width), x_BTD.dtype).at[at].set(x_BTkD, mode="drop")

    def exchanged(x: jax.Array, split: int, concatenate: int) -> jax.Array:
        return lax.all_to_all(x, AXIS, split, concatenate, tiled=True)

    def product(x_eSI: jax.Array, weight_eIO: jax.Array) -> jax.Array:
        return checkpoint_name(jnp.einsum("esi,eio->eso", x_eSI, weight_eIO.astype(x_eSI.dtype)), PRODUCT)

    # From here on, this device's experts and the tokens of all devices.
    x_eSD = exchanged(x_EBCD.reshape(num_experts, rows * slots, width), 0, 1)
    y_ESD = exchanged(feedforward(config, x_eSD, weights, product), 1, 0)
    y_BTkD = y_ESD.reshape(x_EBCD.shape).at[at].get(mode="fill", fill_value=0)
    return jnp.einsum("BTkD,BTk->BTD", y_BTkD, share_BTk)


def divided(
    function: Callable, x_BTD: jax.Array, real_BT: jax.Array, weights: dict[str, Any], exchange: str
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Calls `function`, which is `mixture` of model/mixture_of_experts.py, on each device's own tokens.

    The compiler by itself would sort the tokens of all devices together.

    Args:
      exchange: `mesh.expert_exchange`.
    """
    rows, tokens = compiler_axes(BATCH_AXES), compiler_axes((CONTEXT,))
    mesh = jax.sharding.get_abstract_mesh()
    if all(mesh.shape[axis] == 1 for axis in (*rows, *tokens)):
        return function(x_BTD, real_BT, weights)

    def local(x_BTD: jax.Array, real_BT: jax.Array, weights: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
        def of_each_device(name: str, weight: jax.Array) -> jax.Array:
            shared = tuple(axis for axis in (*rows, *tokens) if not (axis == AXIS and is_of_experts(name)))
            return lax.pcast(weight, shared, to="varying")

        weights = {name: of_each_device(name, weight) for name, weight in weights.items()}
        y_BTD, statistics = function(x_BTD, real_BT, weights, ExpertGroup(exchange, bool(tokens)))
        return y_BTD, lax.psum(statistics, tokens) if tokens else statistics

    specs = {name: P(AXIS) if is_of_experts(name) else P() for name in weights}
    # Matrices are gathered over the other axes here, after the cast to the type in which they are multiplied.
    weights = {
        name: weight.astype(jnp.result_type(x_BTD)) if is_of_experts(name) else weight
        for name, weight in weights.items()
    }
    rows_spec, of_statistics = P(rows, tokens), P(rows)
    on_each_device = functools.partial(jax.shard_map, axis_names={*rows, *tokens})
    arguments = (rows_spec, rows_spec, specs)
    outputs = (rows_spec, of_statistics)
    if PIPELINE not in mesh.manual_axes:
        return on_each_device(local, in_specs=arguments, out_specs=outputs)(x_BTD, real_BT, weights)

    def pull(x_BTD: jax.Array, real_BT: jax.Array, weights: dict[str, Any], cotangents: Any) -> Any:
        return jax.vjp(lambda x_BTD, weights: local(x_BTD, real_BT, weights), x_BTD, weights)[1](cotangents)

    forward = on_each_device(as_one(local), in_specs=arguments, out_specs=outputs)
    backward = on_each_device(as_one(pull), in_specs=(*arguments, outputs), out_specs=(rows_spec, specs))
    return _recomputed(forward, backward, x_BTD, real_BT, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recomputed(forward: Callable, backward: Callable, *arguments: Any) -> Any:
    """`forward(x, real, weights)`, which `backward` computes again.

    JAX cannot pass residuals out of a `shard_map` that is nested in another one, such as a pipeline's.
    """
    return forward(*arguments)


def _recomputed_forward(forward: Callable, backward: Callable, *arguments: Any) -> tuple[Any, Any]:
    return forward(*arguments), arguments


def _recomputed_backward(forward: Callable, backward: Callable, arguments: Any, cotangents: Any) -> Any:
    of_x_BTD, of_weights = backward(*arguments, cotangents)
    return of_x_BTD, None, of_weights


_recomputed.defvjp(_recomputed_forward, _recomputed_backward)
