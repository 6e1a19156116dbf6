"""Positions as a bias on the logits of attention, computed from the distance of a key before its query.

A scheme takes the attention module, in which it may declare parameters (a table of T5's buckets, say), and returns

    bias(distance_BTS: int32) -> what is added to the logits before the mask, [B, N, T, S] float32

It is called with the distances of any rows and keys, so that the reference, the blocks of the xla backend and the cache
all use it. Distances within a packed document are those within the row. A new scheme is a function and a row of
SCHEMES, whose name becomes a choice of `model.position`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Bias = Callable[[jax.Array], jax.Array]


def alibi(module: nn.Module) -> Bias:
    """-slope · |distance|, with a slope for each head (Press et al. 2022, arXiv:2108.12409)."""
    slopes_N11 = np.asarray(alibi_slopes(module.config.num_heads), np.float32)[:, None, None]
    return lambda distance_BTS: -jnp.asarray(slopes_N11) * jnp.abs(distance_BTS)[:, None].astype(jnp.float32)


def alibi_slopes(num_heads: int) -> list[float]:
    """2^(-8/N), 2^(-16/N), … 2^(-8). If N is not a power of two: the slopes for the next lower power, then every second
    slope for the next higher one, as in the authors' code."""
    power = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8 * (n + 1) / power) for n in range(power)]
    return slopes + [2.0 ** (-4 * (2 * n + 1) / power) for n in range(num_heads - power)]


SCHEMES: dict[str, Callable[[nn.Module], Bias]] = {"alibi": alibi}


def position_bias(module: nn.Module) -> Bias | None:
    """The bias of the scheme that `model.position` names; None if that is not such a scheme."""
    scheme = SCHEMES.get(module.config.position)
    return None if scheme is None else scheme(module)
