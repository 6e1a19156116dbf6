"""Arrays rounded to 8-bit floats, for matrix products in training (`model.matmul = "fp8"`; model/precision.py).

Each operand is divided by a scale for the whole tensor and rounded: activations and weights to e4m3 (four significant
bits, up to 448), gradients to e5m2 (three, up to 57,344), as in Micikevicius et al. (arXiv:2209.05433). The scale comes
from the largest number of the same tensor ("current" scaling), so there is no state between steps. It is a power of
two, so that dividing and multiplying by it is exact.

    y = Q4(x) Q4(w)        dx = Q5(dy) Q4(w)ᵀ        dw = Q4(x)ᵀ Q5(dy)

The products here multiply the rounded numbers in the type of x. If a product's operand is an 8-bit float that was
widened and scaled, XLA:GPU multiplies the 8-bit numbers themselves where the hardware can (Hopper and later; both axes
of a matrix must be multiples of 16). Elsewhere the result is the same, but not faster. The backward pass keeps x and w
in 8 bits, half of bfloat16's memory.

Rows that are multiplied together share a scale, so results change slightly with the size of the micro-batches.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

OPERAND, GRADIENT = jnp.float8_e4m3fn, jnp.float8_e5m2


class Float8(NamedTuple):
    """An array whose numbers are values · scale."""

    values: jax.Array  # e4m3 or e5m2
    scale: jax.Array  # float32 scalar, a power of two

    def widened(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        return self.values.astype(dtype) * self.scale.astype(dtype)


def rounded(x: jax.Array, dtype: jax.typing.DTypeLike) -> Float8:
    """Rounds x to the nearest numbers of an 8-bit float type. Values that are not finite stay so."""
    largest = jnp.max(jnp.abs(x)).astype(jnp.float32)
    _, exponent = jnp.frexp(largest / jnp.finfo(dtype).max.astype(jnp.float32))  # largest ≤ largest float · 2^exponent
    scale = jnp.where(largest > 0, jnp.ldexp(jnp.float32(1.0), exponent), 1.0)
    return Float8((x / scale.astype(x.dtype)).astype(dtype), scale)
