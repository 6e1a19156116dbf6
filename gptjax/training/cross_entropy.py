"""Cross-entropy of a linear head, with or without the whole logits in memory.

The loss of one token with target y, hidden state x and weight w:

    logits = softcap(x · head)         lse = log Σ exp(logits)
    nll = lse - logits[y]              loss = w (nll + z_loss · lse²)

The z-loss keeps the softmax normaliser near 1 (PaLM, arXiv:2204.02311, section 5). Matrix products take operands of x's
dtype and accumulate in float32; everything after them is float32.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from gptjax.model.decoder import softcap


def cross_entropy(
    x_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    *,
    chunk: int = 0,
    z_loss: float = 0.0,
    logit_softcap: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of the tokens' losses in nats, and {'nll_sum': that sum without z-loss}; both float32 scalars.

    Args:
      weights_BT: float32; tokens of weight 0 count neither in the loss nor in any gradient.
      chunk: tokens whose logits exist at once, cut along the sequence so that the batch stays sharded, hence at least
        one position of every row; 0: all. Chunked, the gradients are made in the forward pass and kept in place of the
        logits: three matrix products in all, where recomputing the logits would take four.

    The loss is differentiable in x, head and weights; nll_sum is a figure to report and carries no gradient.
    """
    batch, length = targets_BT.shape
    positions = max(1, chunk // batch)
    if chunk and positions < length:
        loss_sum, nll_sum = _chunked(x_BTD, head_DV, targets_BT, weights_BT, positions, z_loss, logit_softcap)
    else:
        logits_BTV = softcap(_project(x_BTD, head_DV), logit_softcap)
        lse_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
        nll_BT = lse_BT - _pick(logits_BTV, targets_BT)
        loss_sum = jnp.sum(weights_BT * (nll_BT + z_loss * jnp.square(lse_BT)))
        nll_sum = jnp.sum(weights_BT * nll_BT)
    return loss_sum, {"nll_sum": jax.lax.stop_gradient(nll_sum)}
