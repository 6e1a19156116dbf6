"""Dropout with a random key per row, so that the zeroed elements do not depend on how a batch is divided.

The key of a row comes from the seed, the step and the row's number in the whole batch, so it is the same for any
accumulation, mesh and number of processes. The key of a layer comes from the row's key and the layer's number, so it is
the same for scanned, unrolled and recomputed layers.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gptjax.settings import ModelSettings


def has_dropout(config: ModelSettings) -> bool:
    """Whether any rate of dropout is positive."""
    return bool(config.dropout or config.attention_dropout or config.lora_dropout)


def row_keys(key: jax.Array, first_row: jax.typing.ArrayLike, num_rows: int) -> jax.Array:
    """The keys [B] of rows first_row … first_row + B - 1 of a batch."""
    return fold_in(jnp.broadcast_to(key, (num_rows,)), first_row + jnp.arange(num_rows))


def fold_in(keys: jax.Array, data: jax.typing.ArrayLike) -> jax.Array:
    """`jax.random.fold_in` for arrays of keys and of numbers, broadcast against each other."""
    keys, data = jnp.broadcast_arrays(keys, jnp.asarray(data))
    return _for_each(jax.random.fold_in, keys.ndim)(keys, data)


def dropout(x: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """Returns x [B, …] with a share `rate` of its elements zeroed and the rest scaled up; without keys, x itself."""
    if keys_B is None or not rate:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys_B)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def keep_probabilities(
    keys_B: jax.Array, rate: float, rows_T: jax.Array, num_keys: int, num_kv_heads: int, group: int
) -> jax.Array:
    """Which attention probabilities are kept, bool [B, K, T, G, S].

    Each row of each head has its own random key, and attention's key s gets its s-th random number. So the numbers are
    the same whether rows are computed together or in blocks, and with all S keys or only the first ones.
    """
    heads_KG = jnp.arange(num_kv_heads * group).reshape(num_kv_heads, group)
    keys_BKTG = fold_in(fold_in(keys_B[:, None], rows_T)[:, None, :, None], heads_KG[:, None, :])
    draw = _for_each(lambda key: jax.random.bits(key, (num_keys,)), 4)
    return draw(keys_BKTG) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def _for_each(function: Callable, ndim: int) -> Callable:
    """Maps a `function` of scalars over arrays of `ndim` axes."""
    for _ in range(ndim):
        function = jax.vmap(function)
    return function
