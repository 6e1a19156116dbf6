"""The key/value cache: what the model has read of each row of a batch, so that a new token costs one step.

Each layer has two arrays [B, K, S, H], its keys and its values. Row b has read `lengths_B[b]` tokens, which lie in
slots 0 … lengths_B[b] - 1: a token's slot is its position in the row. What lies in later slots is never seen, and the
row's next tokens overwrite it. Heads come before slots, so that attention reads the cache without a copy: with
[B, S, K, H] every step would transpose all of it.

Rows are independent, apart from their common shape. Serving builds on that:

- Continuous batching. A row that is done leaves by not being stepped any more. A new prompt is read by a `prefill` of
  one row and written over a free row of the running batch (`inference.decode.insert`), while the others go on where
  they are. The batch's program stays the same.
- Chunked prefill. Reading T tokens on from `lengths_B` is the same call as a step, for which T is 1.
- Paging. A table of pages per row would take the place of "slot = position": `write` then looks up the page of a slot,
  attention gathers the row's pages, and positions, lengths and masks stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class KeyValueCache:
    """Keys and values of L layers for B rows of S slots. It is immutable: writing returns a new cache, for which a
    compiled program reuses the old one's memory if that is donated."""

    keys: tuple[jax.Array, ...]  # [B, K, S, H] per layer
    values: tuple[jax.Array, ...]
    lengths_B: jax.Array  # int32: tokens that each row has read

    @property
    def num_slots(self) -> int:
        return self.keys[0].shape[2]

    def grown(self, more: int) -> KeyValueCache:
        """The same rows with `more` further slots; for a moment both caches are in memory."""
        pad = ((0, 0), (0, 0), (0, more), (0, 0))
        keys, values = (tuple(jnp.pad(x_BKSH, pad) for x_BKSH in layers) for layers in (self.keys, self.values))
        return replace(self, keys=keys, values=values)


def allocate(config_model: Any, batch: int, slots: int) -> KeyValueCache:
    """A cache for `batch` rows that have read nothing.

    Args:
      config_model: the resolved `model` section.
    """
    shape = (batch, config_model.num_kv_heads, slots, config_model.head_width)
    keys, values = (tuple(jnp.zeros(shape, config_model.dtype) for _ in range(config_model.num_layers)) for _ in "kv")
    return KeyValueCache(keys=keys, values=values, lengths_B=jnp.zeros(batch, jnp.int32))


def write(cache_BKSH: jax.Array, new_BTKH: jax.Array, first_slot_B: jax.Array) -> jax.Array:
    """The array with T new tokens of row b at slots first_slot_B[b] … first_slot_B[b] + T - 1. These slots must exist:
    a write beyond the last slot would overwrite the last slots instead."""
    new_BKTH = jnp.swapaxes(new_BTKH, 1, 2).astype(cache_BKSH.dtype)

    def write_row(cache_KSH: jax.Array, new_KTH: jax.Array, first_slot: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(cache_KSH, new_KTH, first_slot, axis=1)

    return jax.vmap(write_row)(cache_BKSH, new_BKTH, first_slot_B)
