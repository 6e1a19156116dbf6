"""Attention, step by step: from dot products to grouped queries with a cache.

Each step is a function that adds one idea to the one before it, and gives what the model's own functions give for the
same inputs (tests/experiments/from_scratch/test_attention.py). Letters at the end of a name are its axes: B rows of a
batch, T tokens, S tokens that are looked at, D width of the model, N query heads, K key/value heads, H width of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


def dot_products(x_TD: jax.Array) -> jax.Array:
    """Step 1: each token becomes a mean of all tokens, weighted by how well they match. There is nothing to learn."""
    weights_TT = jax.nn.softmax(x_TD @ x_TD.T, axis=-1)  # row t: how much token t takes of each token; sums to 1
    return weights_TT @ x_TD


def scaled(q_TH: jax.Array, k_SH: jax.Array, v_SH: jax.Array) -> jax.Array:
    """Step 2: a token asks with its query, answers with its key, and gives its value.

    All three are learned projections of x. A dot product of H random numbers has a standard deviation of sqrt(H).
    Divided by it, the softmax does not start saturated, whatever H is.
    """
    logits_TS = q_TH @ k_SH.T / jnp.sqrt(q_TH.shape[-1])
    return jax.nn.softmax(logits_TS, axis=-1) @ v_SH


def causal_weights(q_TH: jax.Array, k_TH: jax.Array) -> jax.Array:
    """How much each token takes of each token [T, T]: nothing of later ones, and 1 in all."""
    logits_TT = q_TH @ k_TH.T / jnp.sqrt(q_TH.shape[-1])
    is_seen_TT = jnp.tril(jnp.ones_like(logits_TT, bool))
    return jax.nn.softmax(jnp.where(is_seen_TT, logits_TT, -jnp.inf), axis=-1)


def causal(q_TH: jax.Array, k_TH: jax.Array, v_TH: jax.Array) -> jax.Array:
    """Step 3: a token does not see later tokens, so that all positions can be trained at once to predict the next."""
    return causal_weights(q_TH, k_TH) @ v_TH


def multi_head(q_BTNH: jax.Array, k_BTNH: jax.Array, v_BTNH: jax.Array) -> jax.Array:
    """Step 4: several heads look at different things at the same time; `vmap` adds the axes of heads and rows."""
    of_heads = jax.vmap(causal, in_axes=1, out_axes=1)  # T N H: each head by itself
    return jax.vmap(of_heads)(q_BTNH, k_BTNH, v_BTNH)


def grouped_query(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
    """Step 5: N query heads share K key/value heads, in groups of N / K, so that there is less to store in a cache."""
    groups = q_BTNH.shape[2] // k_BTKH.shape[2]
    return multi_head(q_BTNH, jnp.repeat(k_BTKH, groups, axis=2), jnp.repeat(v_BTKH, groups, axis=2))


class Cache(NamedTuple):
    """Keys and values of the tokens read so far, in the first `length` of S slots."""

    keys_BSKH: jax.Array
    values_BSKH: jax.Array
    length: jax.Array  # int32 scalar; an array, so that one compiled program serves every length


def cached(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """Step 6: T new tokens look at themselves and at all earlier ones, whose keys and values are not computed again.

    Returns their outputs [B, T, N, H] and the cache with them. JAX's arrays do not change: writing makes a new cache.
    """
    keys_BSKH = jax.lax.dynamic_update_slice_in_dim(cache.keys_BSKH, k_BTKH, cache.length, axis=1)
    values_BSKH = jax.lax.dynamic_update_slice_in_dim(cache.values_BSKH, v_BTKH, cache.length, axis=1)
    groups = q_BTNH.shape[2] // k_BTKH.shape[2]
    k_BSNH, v_BSNH = jnp.repeat(keys_BSKH, groups, axis=2), jnp.repeat(values_BSKH, groups, axis=2)
    logits_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH) / jnp.sqrt(q_BTNH.shape[-1])
    places_T = cache.length + jnp.arange(q_BTNH.shape[1])
    is_seen_TS = jnp.arange(keys_BSKH.shape[1]) <= places_T[:, None]  # also hides the slots that are still empty
    weights_BNTS = jax.nn.softmax(jnp.where(is_seen_TS, logits_BNTS, -jnp.inf), axis=-1)
    out_BTNH = jnp.einsum("BNTS,BSNH->BTNH", weights_BNTS, v_BSNH)
    return out_BTNH, Cache(keys_BSKH, values_BSKH, cache.length + q_BTNH.shape[1])


def empty_cache(batch: int, slots: int, heads: int, head_width: int) -> Cache:
    nothing = jnp.zeros((batch, slots, heads, head_width))
    return Cache(nothing, nothing, jnp.int32(0))


def attention_layer(params: dict[str, Any], x_BTD: jax.Array) -> jax.Array:
    """The whole layer: projections to heads, step 5, and the projection back to the width of the model.

    params: query [D, N, H], key and value [D, K, H], output [N, H, D]; biases are named as `query_bias`.
    """

    def heads(name: str) -> jax.Array:
        return jnp.einsum("BTD,DNH->BTNH", x_BTD, params[name]) + params.get(f"{name}_bias", 0.0)

    out_BTNH = grouped_query(heads("query"), heads("key"), heads("value"))
    return jnp.einsum("BTNH,NHD->BTD", out_BTNH, params["output"]) + params.get("output_bias", 0.0)
