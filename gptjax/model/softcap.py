"""Bounds on logits, of attention and of the output layer (Gemma 2, arXiv:2408.00118)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def softcap(logits: jax.Array, cap: float) -> jax.Array:
    """cap · tanh(logits / cap), which keeps logits within ±cap; cap 0: unchanged."""
    return cap * jnp.tanh(logits / cap) if cap else logits
