"""What happens between attention's two matrix products: from the logits of queries and keys to the weights of values.

The definition, the blocks and the cache all call `softmax`, so a change made here reaches each of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.model.softcap import softcap

MASKED = -1e30  # finite: a query that sees no key gives numbers, not NaN


@dataclasses.dataclass(frozen=True)
class Scores:
    """Changes to the logits between attention's two matrix products, besides the mask. The defaults change nothing.

    Attributes:
      scale: the factor on the products of queries and keys. 0: 1 / sqrt(H).
      softcap: the bound, c, of the logits after squashing them with c · tanh(logits / c) (Gemma 2). 0: no bound.
      bias: a function from the distances of keys before their queries, [B, T, S], to a term [B, N, T, S] that is added
        to the logits (see `position_bias`).
      sinks_N: for each head, the logit of an additional key that every query sees and whose value is zero (gpt-oss).
    """

    scale: float = 0.0
    softcap: float = 0.0
    bias: Callable[[jax.Array], jax.Array] | None = None
    sinks_N: jax.Array | None = None

    @property
    def only_scale(self) -> bool:
        """Whether nothing but the mask changes the scaled logits."""
        return not self.softcap and self.bias is None and self.sinks_N is None


PLAIN = Scores()


def softmax(
    logits_BKTGS: jax.Array,
    mask_BTS: jax.Array,
    kept: tuple[jax.Array, float] | None = None,
    scores: Scores = PLAIN,
    distance_BTS: Any = None,
) -> jax.Array:
    """Returns the weight of each value for each query.

    Args:
      kept: for dropout, which weights are kept (bool, [B, K, T, G, S]) and the factor that scales them up.
      distance_BTS: how far each key lies before its query, for `scores.bias`.
    """
    _, K, _, G, _ = logits_BKTGS.shape
    logits_BKTGS = softcap(logits_BKTGS, scores.softcap)
    if scores.bias is not None:
        bias_BNTS = scores.bias(distance_BTS)
        logits_BKTGS += jnp.swapaxes(bias_BNTS.reshape(bias_BNTS.shape[0], K, G, *bias_BNTS.shape[2:]), 2, 3)
    logits_BKTGS = jnp.where(mask_BTS[:, None, :, None, :], logits_BKTGS, MASKED)
    if scores.sinks_N is None:
        weights_BKTGS = jax.nn.softmax(logits_BKTGS, axis=-1)
    else:
        sinks_K1G1 = scores.sinks_N.astype(jnp.float32).reshape(K, 1, G, 1)
        largest = jax.lax.stop_gradient(jnp.maximum(logits_BKTGS.max(axis=-1, keepdims=True), sinks_K1G1))
        weights_BKTGS = jnp.exp(logits_BKTGS - largest)
        weights_BKTGS /= weights_BKTGS.sum(axis=-1, keepdims=True) + jnp.exp(sinks_K1G1 - largest)
    if kept is None:
        return weights_BKTGS
    kept_BKTGS, scale = kept
    return jnp.where(kept_BKTGS, weights_BKTGS * scale, 0.0)
