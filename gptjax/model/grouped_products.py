"""Multiplies each row with the matrix of its own expert, and with no other matrix.

Rows are sorted by expert and padded, so that every block of M rows belongs to one expert. `model.expert_products` says
how the blocks are multiplied:

    loop      one block after another, without blocks that are all padding: the fastest form on CPUs
    gathered  all blocks at once, each with its own copy of its expert's matrix: for GPUs
    ragged    `jax.lax.ragged_dot`: for TPUs. On CPUs and GPUs, XLA would multiply every row with every expert
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gptjax.model.int8 import Int8
from gptjax.model.precision import PRODUCT

LARGEST_BLOCK = 512  # rows
SMALLEST_BLOCK = 8


class Blocks(NamedTuple):
    """The assignment of rows to blocks. There are R rows and S = blocks · M slots.

    Attributes:
      slots_R: the slot of each row; S for rows that belong to no expert.
      rows_S: the row in each slot; R where a slot is padding.
      expert_b: the expert of each block.
      used: the number of blocks that hold rows. The blocks after them are all padding.
      blocks_E: the number of blocks of each expert.
    """

    slots_R: jax.Array
    rows_S: jax.Array
    expert_b: jax.Array
    used: jax.Array
    blocks_E: jax.Array

    @property
    def rows_per_block(self) -> int:
        return self.rows_S.shape[0] // self.expert_b.shape[0]


def blocks_of(expert_R: jax.Array, num_experts: int) -> Blocks:
    """Sorts rows into blocks by their expert; rows whose expert is `num_experts` or more are left out."""
    num_rows = expert_R.shape[0]
    num_blocks, size = shape_of_blocks(num_rows, num_experts)
    order_R = jnp.argsort(expert_R, stable=True)
    sorted_R = expert_R[order_R]
    count_E = jnp.bincount(expert_R, length=num_experts + 1)[:num_experts]  # indices out of range are not counted
    blocks_E = -(-count_E // size)
    first_row_E, last_block_E = jnp.cumsum(count_E) - count_E, jnp.cumsum(blocks_E)
    of_R = jnp.minimum(sorted_R, num_experts - 1)
    slot_R = (last_block_E - blocks_E)[of_R] * size + jnp.arange(num_rows) - first_row_E[of_R]
    slot_R = jnp.where(sorted_R < num_experts, slot_R, num_blocks * size)
    slots_R = jnp.zeros_like(order_R).at[order_R].set(slot_R.astype(order_R.dtype))
    rows_S = jnp.full(num_blocks * size, num_rows, order_R.dtype).at[slot_R].set(order_R, mode="drop")
    # The number of experts whose blocks come before.
    expert_b = jnp.sum(last_block_E <= jnp.arange(num_blocks)[:, None], axis=1)
    return Blocks(slots_R, rows_S, jnp.minimum(expert_b, num_experts - 1), last_block_E[-1], blocks_E)


def shape_of_blocks(num_rows: int, num_experts: int) -> tuple[int, int]:
    """(the maximum number of blocks that rows can fill, rows per block)."""
    # A block has a quarter of the rows that an expert gets on average. Padding then costs an eighth of the products.
    size = SMALLEST_BLOCK
    while size < min(LARGEST_BLOCK, num_rows // (4 * num_experts)):
        size *= 2
    return min(num_rows, num_rows // size + num_experts), size


def grouped_product(x_SI: jax.Array, weight_EIO: jax.Array | Int8, blocks: Blocks, products: str) -> jax.Array:
    """Multiplies each slot with the matrix of its block's expert, [S, O] in the dtype of x.

    Args:
      products: 'loop', 'gathered' or 'ragged'.
    """
    size = blocks.rows_per_block
    if products == "ragged" and not isinstance(weight_EIO, Int8):
        y_SO = jax.lax.ragged_dot(x_SI, weight_EIO.astype(x_SI.dtype), (blocks.blocks_E * size).astype(jnp.int32))
        return checkpoint_name(y_SO, PRODUCT)
    x_bMI = x_SI.reshape(-1, size, x_SI.shape[-1])
    if products == "gathered":
        weight_bIO = weight_EIO[blocks.expert_b].astype(x_SI.dtype)
        y_bMO = jnp.einsum("bmi,bio->bmo", x_bMI, weight_bIO)
    elif isinstance(weight_EIO, Int8):
        y_bMO = _multiplied(x_bMI, weight_EIO, blocks.expert_b, blocks.used)
    else:
        y_bMO = _loop(x_bMI, jnp.asarray(weight_EIO, x_SI.dtype), blocks.expert_b, blocks.used)
    return checkpoint_name(y_bMO.reshape(x_SI.shape[0], -1), PRODUCT)


@jax.custom_vjp
def _loop(x_bMI: jax.Array, weight_EIO: jax.Array, expert_b: jax.Array, used: jax.Array) -> jax.Array:
    """The products [b, M, O]. Their gradient is defined here, because JAX cannot differentiate a loop whose number of
    iterations is not static."""
    return _multiplied(x_bMI, weight_EIO, expert_b, used)


def _multiplied(x_bMI: jax.Array, weight_EIO: Any, expert_b: jax.Array, used: jax.Array) -> jax.Array:
    def one(index: jax.Array, y_bMO: jax.Array) -> jax.Array:
        weight_IO = weight_EIO[expert_b[index]].astype(x_bMI.dtype)
        return y_bMO.at[index].set(_product(x_bMI[index], weight_IO).astype(y_bMO.dtype))

    width = (weight_EIO.values if isinstance(weight_EIO, Int8) else weight_EIO).shape[-1]
    return jax.lax.fori_loop(0, used, one, _zeros((*x_bMI.shape[:2], width), x_bMI.dtype, x_bMI))


def _loop_forward(x_bMI: jax.Array, weight_EIO: jax.Array, expert_b: jax.Array, used: jax.Array) -> tuple:
    return _loop(x_bMI, weight_EIO, expert_b, used), (x_bMI, weight_EIO, expert_b, used)


def _loop_backward(kept: tuple, cotangent_bMO: jax.Array) -> tuple:
    x_bMI, weight_EIO, expert_b, used = kept

    def one(index: jax.Array, made: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        of_x_bMI, of_weight_EIO = made
        expert, cotangent_MO = expert_b[index], cotangent_bMO[index]
        of_x_MI = _product(cotangent_MO, weight_EIO[expert].T)
        of_weight_IO = _product(x_bMI[index].T, cotangent_MO)
        return of_x_bMI.at[index].set(of_x_MI.astype(x_bMI.dtype)), of_weight_EIO.at[expert].add(of_weight_IO)

    zeros = (_zeros(x_bMI.shape, x_bMI.dtype, x_bMI), _zeros(weight_EIO.shape, _sum_dtype(x_bMI.dtype), x_bMI))
    of_x_bMI, of_weight_EIO = jax.lax.fori_loop(0, used, one, zeros)
    return of_x_bMI, of_weight_EIO.astype(weight_EIO.dtype), None, None


_loop.defvjp(_loop_forward, _loop_backward)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a · b, summed in float32 or wider."""
    return jnp.matmul(a, b, preferred_element_type=_sum_dtype(a.dtype))


def _sum_dtype(dtype: jax.typing.DTypeLike) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _zeros(shape: tuple[int, ...], dtype: Any, like: jax.Array) -> jax.Array:
    """Zeros with the type of a loop's result: if `like` varies over the devices of a `shard_map`, so do they."""
    kind: Any = jax.typeof(like)  # JAX versions have different names for these axes
    axes = tuple(kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma)
    return jax.lax.pcast(jnp.zeros(shape, dtype), axes, to="varying") if axes else jnp.zeros(shape, dtype)
