"""Fast forms of products for a CPU that generates one text, or a few.

A text alone uses each weight once per token, so that its products take as long as reading the matrices. Three
properties of XLA:CPU decide how long this is:

- It multiplies one row by a matrix [inputs, outputs] on one core. In a matrix [outputs, inputs], each number of the
  result is a sum over adjacent weights. If such a matrix is transposed in the program, XLA merges the transposition
  into the loop over these sums, and divides the loop among the cores. From five rows on, this layout is the slower one.
- It also merges cheap operations that compute the row into this loop, such as the end of a norm, and repeats them for
  every output. It never repeats a division (`computed_once`).
- It merges the update of a cache into what reads the cache of a single row. The cache is then updated twice, and copied
  for that. It does not do so if the cache is first multiplied (`unmerged`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

MOST_ROWS = 4  # for more, matrices [inputs, outputs] are faster


@struct.dataclass
class OutputsFirst:
    """A float32 matrix [I, O] that is stored as [O, I]."""

    stored_OI: jax.Array

    @property
    def dtype(self) -> Any:
        return self.stored_OI.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored_OI.shape[::-1]

    def reshape(self, num_inputs: int, num_outputs: int) -> OutputsFirst:
        """The matrix as [inputs, outputs], which it already is."""
        return self

    def __jax_array__(self) -> jax.Array:
        """The matrix as an array [I, O], for code that multiplies it by itself."""
        return self.stored_OI.T


@struct.dataclass
class TiedTable:
    """A lookup [V, D] that is also the output matrix, which is then `OutputsFirst` as it is."""

    rows_VD: jax.Array

    @property
    def dtype(self) -> Any:
        return self.rows_VD.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows_VD.shape

    @property
    def T(self) -> OutputsFirst:
        return OutputsFirst(self.rows_VD)

    def __getitem__(self, rows: jax.Array) -> jax.Array:
        return self.rows_VD[rows]

    def __jax_array__(self) -> jax.Array:
        return self.rows_VD


def outputs_first_product(x_BTI: jax.Array, weight_IO: OutputsFirst) -> jax.Array:
    """x · weight, [B, T, O] float32."""
    B, T, I = x_BTI.shape
    x_BTI = x_BTI.astype(jnp.float32)
    if B * T > MOST_ROWS:
        return jnp.einsum("BTI,OI->BTO", x_BTI, weight_IO.stored_OI)
    rows_RI = computed_once(x_BTI.reshape(-1, I))
    return jnp.stack([row_I @ weight_IO.stored_OI.T for row_I in rows_RI]).reshape(B, T, -1)


def computed_once(x: jax.Array) -> jax.Array:
    """The same numbers, which XLA:CPU computes before the loop that reads them again and again.

    The divisor is 1, or 2 for NaN, so that XLA does not know it.
    """
    return x / jnp.where(x == x, 1.0, 2.0)


def unmerged(cache: jax.Array, position: jax.Array) -> jax.Array:
    """The same numbers, on a CPU as the result of an operation of their own.

    Args:
      position: that of a token. It is not negative, which XLA does not know.
    """

    def times_one(cache: jax.Array, position: jax.Array) -> jax.Array:
        return cache * jnp.where(position < 0, 2, 1).astype(cache.dtype)

    return jax.lax.platform_dependent(cache, position, cpu=times_one, default=lambda cache, position: cache)
