"""Attention of some query rows of one key/value head, with its own backward pass.

It computes the definition, `attention.attend`, if only the mask acts between the two matrix products. JAX's gradient of
the definition reads the weights, the largest array, once for each operation of the softmax and once more for each
gradient. Here the forward pass divides by the sum after the second product, and the backward pass recomputes the
weights from the largest logit and the sum of each row, as flash attention does (Dao et al. 2022, arXiv:2205.14135,
appendix B.4). Memory grows with T and not with T · S.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gptjax.model.attention_scores import MASKED
from gptjax.model.precision import einsum, einsum_float32

KEPT = ("plain_attention_output", "plain_attention_largest", "plain_attention_total")  # names, for remat policies


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend_plain(scale: float, q_BTGH: jax.Array, k_BSH: jax.Array, v_BSH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """softmax(scale · q kᵀ) v of the G query heads that share a key/value head, [B, T, G, H].

    A query that sees no key gets the mean of the values.

    Args:
      mask_BTS: bool; which query sees which key. Its B may be 1.
    """
    return _forward(scale, q_BTGH, k_BSH, v_BSH, mask_BTS)[0]


def _logits(scale: float, q_BTGH: jax.Array, k_BSH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    logits_BTGS = einsum_float32("BTGH,BSH->BTGS", q_BTGH, k_BSH) * scale
    return jnp.where(mask_BTS[:, :, None, :], logits_BTGS, MASKED)


def _forward(
    scale: float, q_BTGH: jax.Array, k_BSH: jax.Array, v_BSH: jax.Array, mask_BTS: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    logits_BTGS = _logits(scale, q_BTGH, k_BSH, mask_BTS)
    largest_BTG1 = logits_BTGS.max(axis=-1, keepdims=True)
    weights_BTGS = jnp.exp(logits_BTGS - largest_BTG1)
    total_BTG1 = weights_BTGS.sum(axis=-1, keepdims=True)
    out_BTGH = einsum_float32("BTGS,BSH->BTGH", weights_BTGS.astype(v_BSH.dtype), v_BSH) / total_BTG1
    made = (out_BTGH.astype(v_BSH.dtype), largest_BTG1, total_BTG1)
    out_BTGH, largest_BTG1, total_BTG1 = (checkpoint_name(x, name) for x, name in zip(made, KEPT))
    return out_BTGH, (q_BTGH, k_BSH, v_BSH, mask_BTS, out_BTGH, largest_BTG1, total_BTG1)


def _backward(
    scale: float, residuals: tuple[jax.Array, ...], gradient_BTGH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q_BTGH, k_BSH, v_BSH, mask_BTS, out_BTGH, largest_BTG1, total_BTG1 = residuals
    weights_BTGS = jnp.exp(_logits(scale, q_BTGH, k_BSH, mask_BTS) - largest_BTG1) / total_BTG1
    v_gradient_BSH = einsum("BTGS,BTGH->BSH", weights_BTGS.astype(v_BSH.dtype), gradient_BTGH)
    of_weights_BTGS = einsum_float32("BTGH,BSH->BTGS", gradient_BTGH, v_BSH)
    # The gradient of softmax subtracts the weighted mean of these, which equals the sum of output · gradient over H.
    mean_BTG1 = (gradient_BTGH.astype(jnp.float32) * out_BTGH).sum(axis=-1, keepdims=True)
    of_logits_BTGS = jnp.where(mask_BTS[:, :, None, :], weights_BTGS * (of_weights_BTGS - mean_BTG1) * scale, 0.0)
    of_logits_BTGS = of_logits_BTGS.astype(q_BTGH.dtype)
    q_gradient_BTGH = einsum("BTGS,BSH->BTGH", of_logits_BTGS, k_BSH)
    return q_gradient_BTGH, einsum("BTGS,BTGH->BSH", of_logits_BTGS, q_BTGH), v_gradient_BSH, None


attend_plain.defvjp(_forward, _backward)
