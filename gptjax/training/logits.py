"""Logits of hidden vectors, and losses that need whole logits, with those of some tokens in memory at a time.

The cross-entropy of one model has its own, cheaper way (cross_entropy.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.model.blocks import join_blocks
from gptjax.model.precision import einsum_float32
from gptjax.model.softcap import softcap
from gptjax.parallel.sharding import split_vocabulary
from gptjax.training.cross_entropy import in_chunks


def logits_function(model: Any, params: Any, x_BTD: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The function from some of a model's hidden vectors x_BTD to their logits, float32 [B, C, V]."""
    _, head_DV = split_vocabulary(x_BTD, model.apply({"params": params}, method="output_matrix"))
    head_DV = head_DV.astype(x_BTD.dtype)

    def logits(x_BCD: jax.Array) -> jax.Array:
        return softcap(einsum_float32("BTD,DV->BTV", x_BCD, head_DV), model.logit_softcap)

    return logits


def summed_over_chunks(sums: Callable[[tuple[jax.Array, ...]], Any], arrays: Sequence[jax.Array], chunk: int) -> Any:
    """`sums(arrays)`, a tree of sums over tokens, for arrays [B, T, …].

    chunk: the number of tokens whose logits exist at once; 0: all. A chunk has at least one position of every row, and
    the padding of the last one is zeros. The backward pass computes the logits of a chunk again.
    """
    batch, length = arrays[0].shape[:2]
    positions = max(1, chunk // batch)
    if not chunk or positions >= length:
        return sums(tuple(arrays))
    of_chunks = jax.lax.map(jax.checkpoint(sums), in_chunks(positions, *arrays))
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), of_chunks)


def log_probabilities(model: Any, params: Any, x_BTD: jax.Array, targets_BT: jax.Array, chunk: int = 0) -> jax.Array:
    """The log-probability of each target given its hidden vector, float32 [B, T]. chunk: see `summed_over_chunks`."""
    logits_of = logits_function(model, params, x_BTD)

    def of_some(tokens: tuple[jax.Array, ...]) -> jax.Array:
        x_BCD, targets_BC = tokens
        logits_BCV = logits_of(x_BCD)
        is_target_BCV = targets_BC[..., None] == jnp.arange(logits_BCV.shape[-1])  # a mask, as in cross_entropy.py
        target_BC = jnp.sum(jnp.where(is_target_BCV, logits_BCV, 0.0), axis=-1)
        return target_BC - jax.nn.logsumexp(logits_BCV, axis=-1)

    positions = max(1, chunk // targets_BT.shape[0])
    if not chunk or positions >= targets_BT.shape[1]:
        return of_some((x_BTD, targets_BT))
    of_chunks = jax.lax.map(jax.checkpoint(of_some), in_chunks(positions, x_BTD, targets_BT))
    return join_blocks(of_chunks)[:, : targets_BT.shape[1]]
