"""Cross-entropy of a linear head, with all logits in memory at once or in chunks.

The loss of one token with target y, hidden state x and weight w:

    logits = softcap(x · head)         lse = log Σ exp(logits)
    nll = lse - logits[y]              loss = w ((1 - s) nll + s (lse - mean(logits)) + z_loss · lse²)

With label smoothing s, the target has probability 1 - s, and all V tokens share the rest equally (arXiv:1512.00567,
section 7). The z-loss keeps the softmax normaliser near 1 (PaLM, arXiv:2204.02311, section 5).

Matrix products take operands of x's dtype and accumulate in float32; everything between them is float32.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from gptjax.model.blocks import join_blocks, split_blocks
from gptjax.model.precision import einsum, einsum_float32
from gptjax.model.softcap import softcap


def cross_entropy(
    x_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    *,
    chunk: int = 0,
    z_loss: float = 0.0,
    logit_softcap: float = 0.0,
    label_smoothing: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of the tokens' losses in nats, and {'nll_sum': the sum of nll}; both float32 scalars.

    Args:
      weights_BT: float32; tokens of weight 0 count neither in the loss nor in any gradient.
      chunk: number of tokens whose logits exist at once; 0: all. Chunks divide the sequence, so that the batch stays
        sharded: a chunk has at least one position of every row. Gradients are computed in the forward pass and saved
        instead of the logits. This takes three matrix products; recomputing the logits would take four.

    A target outside of the vocabulary whose weight is not 0 makes both sums NaN, so that the run stops or drops the
    step.

    The loss is differentiable in x, head and weights; nll_sum is only reported and has no gradient.
    """
    batch, length = targets_BT.shape
    shape = z_loss, logit_softcap, label_smoothing
    positions = max(1, chunk // batch)
    if chunk and positions < length:
        loss_sum, nll_sum = _chunked(x_BTD, head_DV, targets_BT, weights_BT, positions, *shape)
    else:
        logits_BTV = einsum_float32("BTD,DV->BTV", x_BTD, head_DV.astype(x_BTD.dtype))
        loss_sum, nll_sum = loss_of_logits(logits_BTV, weights_BT, targets_BT, *shape)
    return loss_sum, {"nll_sum": jax.lax.stop_gradient(nll_sum)}


def right_sum(
    x_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array, *, chunk: int = 0
) -> jax.Array:
    """Weighted sum of the tokens whose target has the highest logit. chunk: as for `cross_entropy`."""
    head_DV = head_DV.astype(x_BTD.dtype)

    def right(tokens: tuple[Array, ...]) -> Array:
        x_BCD, targets_BC, weights_BC = tokens
        logits_BCV = einsum_float32("BTD,DV->BTV", x_BCD, head_DV)
        return jnp.sum(weights_BC * (logits_BCV.argmax(axis=-1) == targets_BC))

    positions = max(1, chunk // targets_BT.shape[0])
    if not chunk or positions >= targets_BT.shape[1]:
        return right((x_BTD, targets_BT, weights_BT))
    return jax.lax.map(right, in_chunks(positions, x_BTD, targets_BT, weights_BT)).sum()


def loss_of_logits(
    logits_BTV: Array,
    weights_BT: Array,
    targets_BT: Array,
    z_loss: float,
    logit_softcap: float,
    label_smoothing: float,
) -> tuple[Array, Array]:
    """(loss_sum, nll_sum) from logits before the soft-cap."""
    logits_BTV = softcap(logits_BTV, logit_softcap)
    lse_BT = _logsumexp(logits_BTV)
    # A masked sum instead of a gather: it fuses, it needs no communication if the vocabulary is sharded, and its
    # gradient is a select instead of a scatter.
    is_target_BTV = targets_BT[..., None] == jnp.arange(logits_BTV.shape[-1])
    nll_BT = lse_BT - jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0.0), axis=-1)
    # Without this, a target outside of the vocabulary would cost lse, which looks valid. It must cost NaN.
    is_wrong_BT = ((targets_BT < 0) | (targets_BT >= logits_BTV.shape[-1])) & (weights_BT != 0)
    nll_BT = jnp.where(is_wrong_BT, jnp.nan, nll_BT)
    loss_BT = nll_BT
    if label_smoothing:
        loss_BT = (1 - label_smoothing) * nll_BT + label_smoothing * (lse_BT - jnp.mean(logits_BTV, axis=-1))
    if z_loss:
        loss_BT += z_loss * jnp.square(lse_BT)
    return jnp.sum(weights_BT * loss_BT), jnp.sum(weights_BT * nll_BT)


@jax.custom_vjp
def _logsumexp(logits_BTV: Array) -> Array:
    """log Σ exp over the last axis. Its backward pass recomputes the probabilities from the logits, which are saved
    anyway; JAX's own gradient saves a second array of the logits' size."""
    return jax.nn.logsumexp(logits_BTV, axis=-1)


def _logsumexp_forward(logits_BTV: Array) -> tuple[Array, tuple[Array, Array]]:
    lse_BT = _logsumexp(logits_BTV)
    return lse_BT, (logits_BTV, lse_BT)


def _logsumexp_backward(residuals: tuple[Array, Array], cotangent_BT: Array) -> tuple[Array]:
    logits_BTV, lse_BT = residuals
    return (cotangent_BT[..., None] * jnp.exp(logits_BTV - lse_BT[..., None]),)


_logsumexp.defvjp(_logsumexp_forward, _logsumexp_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _chunked(
    x_BTD: Array,
    head_DV: Array,
    targets_BT: Array,
    weights_BT: Array,
    positions: int,
    z_loss: float,
    logit_softcap: float,
    label_smoothing: float,
) -> tuple[Array, Array]:
    """(loss_sum, nll_sum) with the logits of `positions` positions of every row at a time."""
    head_DV = head_DV.astype(x_BTD.dtype)

    def sums(chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        x_BCD, targets_BC, weights_BC = chunk
        logits_BCV = einsum_float32("BTD,DV->BTV", x_BCD, head_DV)
        return loss_of_logits(logits_BCV, weights_BC, targets_BC, z_loss, logit_softcap, label_smoothing)

    losses, nlls = jax.lax.map(sums, in_chunks(positions, x_BTD, targets_BT, weights_BT))
    return losses.sum(), nlls.sum()


def _chunked_forward(
    x_BTD: Array,
    head_DV: Array,
    targets_BT: Array,
    weights_BT: Array,
    positions: int,
    z_loss: float,
    logit_softcap: float,
    label_smoothing: float,
) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    """The same sums and, as residuals, the gradients of loss_sum. The head's gradient is summed in float32 over the
    chunks."""
    low_DV, shape = head_DV.astype(x_BTD.dtype), (z_loss, logit_softcap, label_smoothing)

    def add(head_gradient_DV: Array, chunk: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        x_BCD, targets_BC, weights_BC = chunk
        logits_BCV = einsum_float32("BTD,DV->BTV", x_BCD, low_DV)
        loss, pullback, nll = jax.vjp(
            lambda logits, weights: loss_of_logits(logits, weights, targets_BC, *shape),
            logits_BCV,
            weights_BC,
            has_aux=True,
        )
        logits_gradient_BCV, weights_gradient_BC = pullback(jnp.ones_like(loss))
        logits_gradient_BCV = logits_gradient_BCV.astype(x_BCD.dtype)
        head_gradient_DV += einsum_float32("BTD,BTV->DV", x_BCD, logits_gradient_BCV)
        x_gradient_BCD = einsum("BTV,DV->BTD", logits_gradient_BCV, low_DV)
        return head_gradient_DV, (loss, nll, x_gradient_BCD, weights_gradient_BC)

    head_gradient_DV, (losses, nlls, x_gradient, weights_gradient) = jax.lax.scan(
        add, jnp.zeros_like(low_DV, jnp.float32), in_chunks(positions, x_BTD, targets_BT, weights_BT)
    )
    length = targets_BT.shape[1]
    gradients = (
        join_blocks(x_gradient)[:, :length],
        head_gradient_DV.astype(head_DV.dtype),
        join_blocks(weights_gradient)[:, :length],
    )
    return (losses.sum(), nlls.sum()), gradients


def _chunked_backward(
    positions: int,
    z_loss: float,
    logit_softcap: float,
    label_smoothing: float,
    gradients: tuple[Array, Array, Array],
    cotangents: tuple[Array, Array],
) -> tuple[Array, Array, None, Array]:
    loss_cotangent, _ = cotangents  # nll_sum has no gradient
    x_BTD, head_DV, weights_BT = jax.tree.map(lambda g: (g * loss_cotangent).astype(g.dtype), gradients)
    return x_BTD, head_DV, None, weights_BT


_chunked.defvjp(_chunked_forward, _chunked_backward)


def in_chunks(positions: int, *arrays: Array) -> tuple[Array, ...]:
    """Each [B, T, …] as [chunks, B, at most positions, …], the sequence padded with zeros (tokens of weight 0)."""
    length = arrays[0].shape[1]
    chunks = -(-length // positions)
    positions = -(-length // chunks)  # chunks of equal size need the least padding

    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, chunks * positions - length)] + [(0, 0)] * (x.ndim - 2))
        return split_blocks(x, chunks)

    return tuple(cut(x) for x in arrays)
