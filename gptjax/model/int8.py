"""8-bit weights, which take a quarter of float32's memory: for generation, and frozen under adapters.

The weights of each output are rounded to 255 equidistant values, scaled by the largest of these weights. Activations
are rounded in the same way, row by row, when they are multiplied: as integers. This is LLM.int8() (arXiv:2208.07339)
without its 16-bit outliers. 8-bit weights have no gradients.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

_LARGEST = 127


@struct.dataclass
class Int8:
    """A weight array whose numbers are values · scale, with the operations that the model needs."""

    values: jax.Array  # int8
    scale: jax.Array  # float32; same rank as values, size 1 along the axes that a product sums over

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def T(self) -> Int8:
        return type(self)(self.values.T, self.scale.T)

    def reshape(self, num_inputs: int, num_outputs: int) -> Int8:
        """The weight as [inputs, outputs]; its outputs must come last."""
        return type(self)(self.values.reshape(num_inputs, num_outputs), self.scale.reshape(1, num_outputs))

    def __getitem__(self, rows: jax.Array) -> jax.Array:
        """Rows in float32."""
        return self.values[rows] * self.scale[rows]


@struct.dataclass
class WidenedInt8(Int8):
    """The same numbers, which are multiplied in the type of the other factor, as the frozen weights under adapters are.
    A product has a gradient for the other factor."""


def widened(x: jax.Array | Int8, dtype: jax.typing.DTypeLike) -> jax.Array:
    """The numbers of an array in this type."""
    return (x.values * x.scale).astype(dtype) if isinstance(x, Int8) else x.astype(dtype)


def quantize(x: jax.Array, summed_axes: tuple[int, ...]) -> Int8:
    """Rounds x to 8 bits. Numbers along `summed_axes`, over which a product sums, share one scale."""
    largest = jnp.max(jnp.abs(x), axis=summed_axes, keepdims=True).astype(jnp.float32)
    scale = jnp.where(largest > 0, largest, 1.0) / _LARGEST
    return Int8(jnp.round(x / scale).astype(jnp.int8), scale)


def int8_product(x_BTI: jax.Array, weight_IO: Int8) -> jax.Array:
    """x · weight, [B, T, O] float32."""
    x = quantize(x_BTI, (-1,))
    total_BTO = jnp.einsum("BTI,IO->BTO", x.values, weight_IO.values, preferred_element_type=jnp.int32)
    return total_BTO * (x.scale * weight_IO.scale)
