"""The key/value cache: keys and values of all tokens that the model has read, so that a new token costs one step.

Each layer has two arrays [B, K, S, H], its keys and its values. Row b has read `lengths_B[b]` tokens, which are in
slots 0 … lengths_B[b] - 1: a token's slot is its position in the row. Attention never sees the content of later slots,
and the row's next tokens overwrite it. Heads come before slots, so that attention reads the cache without a copy. With
the layout [B, S, K, H], every step would transpose the whole cache.

Rows are independent, apart from their common shape. Serving relies on that:

- Continuous batching. A finished row is no longer stepped. A `prefill` of one row reads a new prompt, which is then
  written over a free row of the running batch (`inference.decode.insert`), while the other rows continue. The compiled
  program of the batch stays the same.
- Chunked prefill. Reading T further tokens is the same call as a step, which reads one.
- Paging (not implemented). A table of pages per row would replace the rule that a token's slot is its position. `write`
  would look up the page of a slot, attention would gather the row's pages, and positions, lengths and masks would not
  change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class KeyValueCache:
    """Keys and values of L layers for B rows of S slots.

    It is immutable: writing returns a new cache. A compiled program reuses the old cache's memory if it is donated.
    """

    keys: tuple[jax.Array, ...]  # [B, K, S, H] per layer
    values: tuple[jax.Array, ...]
    lengths_B: jax.Array  # int32: tokens that each row has read

    @property
    def num_slots(self) -> int:
        return self.keys[0].shape[2]

    def grown(self, more: int) -> KeyValueCache:
        """Returns the same rows with `more` further slots. Both caches are briefly in memory."""
        return self.with_slots(self.num_slots + more)

    def with_slots(self, slots: int) -> KeyValueCache:
        """Returns the same rows with this number of slots; if there are fewer than before, the last are cut off."""

        def resized(x_BKSH: jax.Array) -> jax.Array:
            missing = max(0, slots - x_BKSH.shape[2])
            return jnp.pad(x_BKSH[:, :, :slots], ((0, 0), (0, 0), (0, missing), (0, 0)))

        keys, values = (tuple(map(resized, layers)) for layers in (self.keys, self.values))
        return replace(self, keys=keys, values=values)


def allocate(config_model: Any, batch: int, slots: int) -> KeyValueCache:
    """Returns a cache for `batch` rows that have read nothing.

    Args:
      config_model: the resolved `model` section.
    """
    shape = (batch, config_model.num_kv_heads, slots, config_model.head_width)
    keys, values = (tuple(jnp.zeros(shape, config_model.dtype) for _ in range(config_model.num_layers)) for _ in "kv")
    return KeyValueCache(keys=keys, values=values, lengths_B=jnp.zeros(batch, jnp.int32))


def write(cache_BKSH: jax.Array, new_BTKH: jax.Array, first_slot_B: jax.Array) -> jax.Array:
    """Returns the array with T new tokens of row b in slots first_slot_B[b] … first_slot_B[b] + T - 1.

    These slots must exist: a write beyond the last slot would silently overwrite the last slots instead.
    """
    new_BKTH = jnp.swapaxes(new_BTKH, 1, 2).astype(cache_BKSH.dtype)

    def write_row(cache_KSH: jax.Array, new_KTH: jax.Array, first_slot: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(cache_KSH, new_KTH, first_slot, axis=1)

    return jax.vmap(write_row)(cache_BKSH, new_BKTH, first_slot_B)
