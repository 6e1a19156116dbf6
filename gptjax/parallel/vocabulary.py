"""Embedding and head of a model on a mesh: looking up input tokens, and scoring output tokens.

Both have a matrix with an axis as long as the vocabulary, often the largest of the model. Devices hold parts of its
other axis, the residual stream, in float32.

The embedding is never gathered. Each device looks up its columns for the tokens of all devices, and an all-to-all then
gives each device all columns of its own tokens. The number of bytes sent grows with the tokens and not with the
vocabulary. Each device sums the gradient of its columns over all tokens in float32, as a single device would.

The head needs the whole matrix on each device. The matrix is rounded to the type of the product and sent once, outside
of the loop over chunks of tokens. The same holds for the gradient that is sent back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from gptjax.model.int8 import Int8
from gptjax.parallel.mesh import AXES, BATCH_AXES, compiler_axes
from gptjax.parallel.sharding import TABLE, joined, rows_spec, split_vocabulary

TOKEN_AXES = (*BATCH_AXES, "context")  # the axes over which the tokens of a batch are split
TENSOR = "tensor"


def looked_up(
    function: Callable[..., jax.Array], tables: Sequence[jax.Array], indices: Sequence[jax.Array]
) -> jax.Array:
    """`function(tables, indices)` (see `Placement.lookup`), computed by columns if several devices hold columns."""
    holding = _several(TABLE["embed"].lookup)
    batch, length = max(index.shape[0] for index in indices), indices[0].shape[1]
    if any(isinstance(table, Int8) for table in tables):  # its scales, one per row, have no columns to divide
        return function(tables, indices)
    rows, tokens = compiler_axes(BATCH_AXES), compiler_axes(("context", TENSOR))
    if not holding or not _divides(batch, rows) or not _divides(length, tokens):  # generation may have few rows
        return function(tables, indices)
    by_rows, by_row = rows_spec(1, rows), P(None, "context")
    of_rows = tuple(axis for axis in holding if axis != TENSOR)
    specs = [by_rows if index.shape[0] == batch else by_row for index in indices]

    def local(tables: Sequence[jax.Array], indices: Sequence[jax.Array]) -> jax.Array:
        if of_rows:
            indices = [
                jax.lax.all_gather(index, of_rows, tiled=True) if spec == by_rows else index
                for index, spec in zip(indices, specs)
            ]
        x_btd = function(tables, indices)  # all rows of the devices that hold columns, some columns
        if TENSOR in holding:  # these devices have the same rows, and each keeps some of the tokens
            x_btd = jax.lax.all_to_all(x_btd, TENSOR, split_axis=1, concat_axis=2, tiled=True)
        if of_rows:
            x_btd = jax.lax.all_to_all(x_btd, of_rows, split_axis=0, concat_axis=2, tiled=True)
        return x_btd

    in_specs = ([P(None, holding)] * len(tables), specs)
    divided = jax.shard_map(local, in_specs=in_specs, out_specs=P(rows, tokens), axis_names=set(compiler_axes(AXES)))
    return divided(list(tables), list(indices))


def on_own_tokens(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets each device apply `function(x_BTD, head_DV, targets_BT, weights_BT)`, which returns sums, to its own tokens.
    These sums are added up over all devices of the current mesh.

    The partitioner by itself would gather the head and sum its gradient over the devices in every iteration of a loop
    over chunks. Here that happens once, outside of the loop. The vocabulary stays split over `tensor`.
    """
    mesh, axes = jax.sharding.get_abstract_mesh(), compiler_axes(TOKEN_AXES)

    def of_one(x_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array) -> Any:
        return function(*split_vocabulary(x_BTD, head_DV), targets_BT, weights_BT)

    if all(mesh.shape[axis] == 1 for axis in axes):
        return of_one

    def local(x_BTD: jax.Array, copy_1DV: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array) -> Any:
        return jax.lax.psum(of_one(x_BTD, copy_1DV[0], targets_BT, weights_BT), axes)

    def of_all(x_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array) -> Any:
        tokens = P(compiler_axes(BATCH_AXES), compiler_axes(("context",)))
        in_specs = (tokens, P(axes), tokens, tokens)
        divided = jax.shard_map(local, in_specs=in_specs, out_specs=P(), axis_names=set(axes))
        return divided(x_BTD, _copies(head_DV, x_BTD.dtype), targets_BT, weights_BT)

    return of_all


def _copies(head_DV: jax.Array, dtype: Any) -> jax.Array:
    """A copy of the head for each device that has its own tokens, [devices, D, V]: each device holds its own copy.

    Parts are gathered manually over all axes of the mesh, since the compiler would first gather the vocabulary.
    """
    axes = compiler_axes(TOKEN_AXES)
    splitting = joined(TABLE["embed"].matrix, head_DV.shape[0], jax.sharding.get_abstract_mesh())
    holding = _several(axis for axis in splitting if axis in axes)
    copied = tuple(axis for axis in axes if axis not in holding)
    vocabulary = compiler_axes((TENSOR,)) if _divides(head_DV.shape[1], (TENSOR,)) else ()

    def local(part_dV: jax.Array) -> jax.Array:
        # Marked as varying over devices while it is float32, so that the gradients of the copies are summed in float32.
        part_dV = jax.lax.pcast(part_dV, copied, to="varying")
        return (_gathered(part_dV, holding, dtype) if holding else part_dV)[None]

    in_specs, out_specs = P(holding, vocabulary), P(axes, None, vocabulary)
    return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs, axis_names=set(compiler_axes(AXES)))(head_DV)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(part: jax.Array, axes: tuple[str, ...], dtype: Any) -> jax.Array:
    """All parts of a float32 head along its first axis, in `dtype`. Its gradient is summed over devices in `dtype`."""
    return jax.lax.all_gather(part.astype(dtype), axes, tiled=True)


def _gathered_forward(part: jax.Array, axes: tuple[str, ...], dtype: Any) -> tuple[jax.Array, None]:
    return _gathered(part, axes, dtype), None


def _gathered_backward(axes: tuple[str, ...], dtype: Any, _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    def scattered(cotangent: jax.Array) -> jax.Array:
        return jax.lax.psum_scatter(cotangent, axes, tiled=True).astype(jnp.float32)

    def widened(cotangent: jax.Array) -> jax.Array:  # XLA:CPU cannot sum bfloat16 over devices in a `shard_map`
        return scattered(cotangent.astype(jnp.float32))

    return (jax.lax.platform_dependent(cotangent, cpu=widened, default=scattered),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _several(axes: Iterable[str]) -> tuple[str, ...]:
    """Those of the axes along which the current mesh has several devices and the compiler divides work."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in compiler_axes(tuple(axes)) if mesh.shape[axis] > 1)


def _divides(size: int, axes: Sequence[str]) -> bool:
    """Whether the devices along these axes of the current mesh get equal shares of a size."""
    mesh = jax.sharding.get_abstract_mesh()
    return size % math.prod(mesh.shape[axis] for axis in axes) == 0
