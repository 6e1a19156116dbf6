"""Matrices stored as [outputs, inputs], for a single row on a CPU: one text that is generated, token by token.

A single row uses each weight once, so its product takes as long as reading the matrix. XLA:CPU multiplies a row by a
matrix [inputs, outputs] on one core, and multiplies narrow weights only together with a second row. From a matrix
[outputs, inputs], each number of the result is a sum over adjacent weights. If the matrix is transposed in the program,
XLA merges the transposition, and the widening of narrow weights, into the loop over these sums, and divides the loop
over the cores. Products of several rows are slower in this layout.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from gptjax.model.int8 import Int8, quantize


@struct.dataclass
class OutputsFirst:
    """A matrix [I, O] that is stored as [O, I]."""

    rows: jax.Array | Int8  # [O, I]

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    @property
    def matrix(self) -> jax.Array | Int8:
        """The matrix as [I, O]."""
        return self.rows.T

    def reshape(self, num_inputs: int, num_outputs: int) -> OutputsFirst:
        """The matrix as [inputs, outputs], which it is already."""
        assert num_inputs == self.rows.shape[1] and num_outputs in (-1, self.rows.shape[0])
        return self


def one_row_product(x_BTI: jax.Array, weight: OutputsFirst) -> jax.Array:
    """x · weight for a single row, [1, 1, O] float32.

    Both are rounded to the narrower of their two types, as products of several rows are. The products of two rounded
    numbers and their sum are float32, which takes no longer here, because memory is slower than the processor.
    """
    rows = weight.rows
    if isinstance(rows, Int8):
        x = quantize(x_BTI, (-1,))
        # Float32 holds integers up to 2^24 exactly, which is the sum of 1,040 products of the largest numbers.
        return _product(x.values, rows.values) * (x.scale * rows.scale.T)
    dtype = min(x_BTI.dtype, rows.dtype, key=lambda dtype: dtype.itemsize)
    return _product(x_BTI.astype(dtype), rows.astype(dtype))


def _product(x_BTI: jax.Array, rows_OI: jax.Array) -> jax.Array:
    x_I = x_BTI.reshape(-1).astype(jnp.float32)
    return (x_I @ rows_OI.T.astype(jnp.float32)).reshape(1, 1, -1)
