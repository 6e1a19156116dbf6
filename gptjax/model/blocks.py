"""Parts of sequences: blocks, so that a loop over them holds the intermediate results of one block at a time, and
chosen tokens.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def split_blocks(x_BT: jax.Array, num_blocks: int) -> jax.Array:
    """Returns an array [B, T, …] as [blocks, B, T / blocks, …]."""
    return jnp.moveaxis(x_BT.reshape(x_BT.shape[0], num_blocks, -1, *x_BT.shape[2:]), 1, 0)


def join_blocks(blocks: jax.Array) -> jax.Array:
    """The inverse of `split_blocks`: returns [blocks, B, T / blocks, …] as [B, T, …]."""
    joined = jnp.moveaxis(blocks, 0, 1)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])


def taken(x_BT: jax.Array, places_BQ: jax.Array) -> jax.Array:
    """Returns the tokens of each row at the given places, [B, Q, …]. x_BT may be [1, T, …] if all rows are the same."""
    return x_BT[jnp.arange(x_BT.shape[0])[:, None], places_BQ]
