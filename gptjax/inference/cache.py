"""The key/value cache: one pair of arrays [B, K, S, H] a layer, in lengths that come in buckets.

Heads come before positions, so that attention reads the cache as it lies: with [B, S, K, H] every step would transpose
all of it. Rows are right-aligned: row b's prompt ends in the same slot as every other row's, its first token is in slot
`start_B[b]`, and the position of slot s is `s - start_B[b]`.

Shapes decide what must be compiled, so lengths are rounded up to multiples of BUCKET: prompts of similar length share
one program. A step reads the whole cache, filled or not; therefore it starts small and grows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

BUCKET = 128
PIECE = 4 * BUCKET  # prompt tokens that the model reads at a time
FIRST_ROOM = 512  # new tokens that the cache has room for at first; it then doubles


def bucketed(length: int) -> int:
    """`length` rounded up to a whole number of buckets."""
    return -(-length // BUCKET) * BUCKET


def prompt_slots(length: int, max_positions: int) -> int:
    """Slots for prompts of up to `length` tokens: whole buckets up to one piece, whole pieces beyond."""
    if length > PIECE:
        return -(-length // PIECE) * PIECE
    return min(bucketed(length), max_positions)


def rooms(num_new: int) -> list[int]:
    """The numbers of new tokens that the cache has room for, one growth after the other, up to `num_new`."""
    sizes = [min(num_new, FIRST_ROOM)]
    while sizes[-1] < num_new:
        sizes.append(min(2 * sizes[-1], num_new))
    return sizes


def allocate(config_model, start_B: jax.Array, slots: int) -> dict:
    """An empty cache of `slots` positions for rows whose first token will be in slot `start_B`."""
    shape = (start_B.shape[0], config_model.num_kv_heads, slots, config_model.head_width)
    keys, values = ([jnp.zeros(shape, config_model.dtype) for _ in range(config_model.num_layers)] for _ in "kv")
    return dict(keys=keys, values=values, length=jnp.int32(0), start_B=start_B)


def num_slots(cache: dict) -> int:
    return cache["keys"][0].shape[2]


def grow(cache: dict, slots: int) -> dict:
    """The same cache with room for `slots` positions; for a moment both are in memory."""
    more = ((0, 0), (0, 0), (0, slots - num_slots(cache)), (0, 0))
    return cache | {name: [jnp.pad(x_BKSH, more) for x_BKSH in cache[name]] for name in ("keys", "values")}
