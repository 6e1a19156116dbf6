"""Several tokens per step: proposals are copied from what a row has read, and the model checks them all in one call.

Texts repeat names, quotes and lines of code. Where the last tokens of a row occurred before, what followed them then is
proposed to follow again (prompt lookup). The model reads the latest token and K proposed ones in one call, which costs
less than K + 1 calls, since the weights are read only once. Then tokens are drawn as they are without proposals: one
after another, each from its own logits, with its own penalties and its own random key. The first that differs from what
was proposed is kept, and the rest of the proposal, on which the further logits depend, is forgotten.

So proposals change no text, whether it is drawn at random or not, except for how sums are rounded. Every step reads
K + 1 tokens in every row, also where nothing is proposed: a text does not depend on what is proposed to its neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.inference.decode_state import DecodeState, draw
from gptjax.model.family import Family

LONGEST = 3  # tokens that are looked up; if they did not occur before, fewer are, down to one


def propose(read_BS: jax.Array, length_B: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """What followed the last tokens of a row where they occurred before: the longest match, the latest of these.

    If less than `count` tokens follow, the row is taken to go on repeating itself.

    Args:
      read_BS: int32; the tokens of row b are its first length_B[b] ≥ 1.

    Returns:
      the tokens [B, count], and whether there was a match, bool [B]; if not, the tokens have no meaning.
    """
    slots_1S = jnp.arange(read_BS.shape[1])[None]
    last_B1 = length_B[:, None] - 1
    is_alike_BS, alike_BS = slots_1S < last_B1, jnp.zeros(read_BS.shape, jnp.int32)
    for back in range(LONGEST):
        own_B1 = jnp.take_along_axis(read_BS, jnp.maximum(last_B1 - back, 0), axis=1)
        is_alike_BS &= (jnp.roll(read_BS, back, axis=1) == own_B1) & (slots_1S >= back)
        alike_BS += is_alike_BS
    rank_BS = jnp.where(alike_BS > 0, alike_BS * read_BS.shape[1] + slots_1S, -1)
    match_B1 = jnp.argmax(rank_BS, axis=1)[:, None]
    places_BK = match_B1 + 1 + jnp.arange(count) % jnp.maximum(last_B1 - match_B1, 1)
    return jnp.take_along_axis(read_BS, places_BK, axis=1), jnp.max(rank_BS, axis=1) >= 0


def draw_several(family: Family, params: Any, state: DecodeState, num_proposed: int) -> DecodeState:
    """Adds one to 1 + `num_proposed` tokens to every row that is not done.

    The cache, a `KeyValueCache`, must have room for 1 + `num_proposed` tokens in every row, also in those that are
    done; what is written there for tokens that are not kept is overwritten by the next step.
    """
    cache: Any = state.cache
    read_BS, sums_B = state.read_BS, (state.proposed_B, state.accepted_B)
    assert read_BS is not None and sums_B[0] is not None and sums_B[1] is not None
    rows_B1, num_read_B = jnp.arange(len(state.token_B))[:, None], cache.lengths_B
    read_BS = read_BS.at[rows_B1, num_read_B[:, None]].set(state.token_B[:, None], mode="drop")
    proposed_BK, is_proposed_B = propose(read_BS, num_read_B + 1, num_proposed)
    slots_BK = num_read_B[:, None] + 1 + jnp.arange(num_proposed)
    read_BS = read_BS.at[rows_B1, slots_BK].set(proposed_BK, mode="drop")

    going_B = ~state.done_B
    tokens_BT = jnp.concatenate([state.token_B[:, None], proposed_BK], axis=1)
    cache, x_BTD = family.read(params, cache, tokens_BT, jnp.where(going_B, 1 + num_proposed, 0))
    logits_BTV = family.logits(params, x_BTD)

    def going_on(carry: tuple[jax.Array, jax.Array, DecodeState]) -> jax.Array:
        place, drawing_B, _ = carry
        return (place <= num_proposed) & jnp.any(drawing_B)

    def draw_next(carry: tuple[jax.Array, jax.Array, DecodeState]) -> tuple[jax.Array, jax.Array, DecodeState]:
        place, drawing_B, state = carry
        logits_BV = jax.lax.dynamic_index_in_dim(logits_BTV, place, axis=1, keepdims=False)
        new = draw(replace(state, done_B=~drawing_B), logits_BV)
        next_B = jax.lax.dynamic_index_in_dim(tokens_BT, jnp.minimum(place + 1, num_proposed), 1, keepdims=False)
        is_right_B = is_proposed_B & (place < num_proposed) & (new.token_B == next_B)
        done_B = state.done_B | (drawing_B & new.done_B)
        return place + 1, ~new.done_B & is_right_B, replace(new, done_B=done_B)

    nothing: Any = None  # the loop needs neither of these
    carry = jnp.int32(0), going_B, replace(state, cache=nothing, read_BS=nothing)
    drawn = jax.lax.while_loop(going_on, draw_next, carry)[2]
    num_drawn_B = drawn.length_B - state.length_B
    return replace(
        drawn,
        cache=replace(cache, lengths_B=num_read_B + num_drawn_B),
        read_BS=read_BS,
        proposed_B=sums_B[0] + jnp.where(going_B & is_proposed_B, num_proposed, 0),
        accepted_B=sums_B[1] + jnp.maximum(num_drawn_B - 1, 0),
    )
