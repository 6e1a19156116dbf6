"""Matrix products with operands of one type, sums in float32, and explicit gradients.

JAX's own gradients would mix float32 cotangents with low-precision operands, or products that the compiler cannot map
to fast instructions. XLA:CPU uses the processor's bfloat16 units only for products of one form: a float32 result, a
first operand that is not transposed, and more than one row. On a CPU, every product of the model is brought into this
form. On other platforms, products are not changed, since GPU libraries round by themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gptjax.model.float8 import GRADIENT, OPERAND, Float8, rounded
from gptjax.model.int8 import Int8, WidenedInt8, int8_product, widened
from gptjax.model.one_row import OutputsFirst, outputs_first_product

PRODUCT = "product"  # the name of `project`'s result in remat policies


def einsum(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """einsum of two arrays of one dtype, in that dtype."""
    return _einsum(subscripts, a.dtype, a, b)


def einsum_float32(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """einsum of two arrays of one dtype, in float32. A cotangent is rounded to the operands' dtype first: JAX's own
    gradient would compute two of three products on the float32 units."""
    return _einsum(subscripts, jnp.dtype("float32"), a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _einsum(subscripts: str, dtype: jax.typing.DTypeLike, a: jax.Array, b: jax.Array) -> jax.Array:
    if dtype == jnp.float32:
        return jnp.einsum(subscripts, a, b, preferred_element_type=dtype)

    def rounded(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32).astype(dtype)

    return jax.lax.platform_dependent(a, b, cpu=rounded, default=functools.partial(jnp.einsum, subscripts))


def _einsum_forward(
    subscripts: str, dtype: jax.typing.DTypeLike, a: jax.Array, b: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _einsum(subscripts, dtype, a, b), (a, b)


def _einsum_backward(
    subscripts: str, dtype: jax.typing.DTypeLike, operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, b = operands
    operand_axes, output = subscripts.split("->")
    axes_a, axes_b = operand_axes.split(",")
    cotangent = cotangent.astype(a.dtype)
    return einsum(f"{output},{axes_b}->{axes_a}", cotangent, b), einsum(f"{output},{axes_a}->{axes_b}", cotangent, a)


_einsum.defvjp(_einsum_forward, _einsum_backward)


def project(
    x_BTI: jax.Array, weight: jax.Array | Int8 | OutputsFirst, bias: jax.Array | None = None, matmul: str = "dtype"
) -> jax.Array:
    """x · weight [+ bias], [B, T, O] in x's dtype.

    Args:
      weight: [I, O], where both may be several axes. If its type is wider than that of x, it is rounded to the type of
        x; if it is narrower, x is rounded to the weight's type, and the result is not rounded.
      bias: O numbers, in any shape.
      matmul: `model.matmul`.
    """
    weight_IO = weight.reshape(x_BTI.shape[-1], -1)
    if isinstance(weight_IO, WidenedInt8):
        y_BTO = checkpoint_name(_project_widened(x_BTI, weight_IO), PRODUCT)
    elif isinstance(weight_IO, Int8 | OutputsFirst) or weight_IO.dtype.itemsize < x_BTI.dtype.itemsize:
        y_BTO = project_float32(x_BTI, weight_IO).astype(x_BTI.dtype)
    else:
        multiply = float8_product if matmul == "fp8" else _project
        y_BTO = checkpoint_name(multiply(x_BTI, weight_IO.astype(x_BTI.dtype)), PRODUCT)
    return y_BTO if bias is None else y_BTO + over_rows(bias.reshape(-1).astype(x_BTI.dtype), y_BTO.shape)


def project_float32(x_BTI: jax.Array, weight_IO: jax.Array | Int8 | OutputsFirst) -> jax.Array:
    """x · weight in float32, of operands in the narrower of their two types."""
    if isinstance(weight_IO, OutputsFirst):
        return outputs_first_product(x_BTI, weight_IO)
    if isinstance(weight_IO, Int8):
        return _two_rows(int8_product, x_BTI, weight_IO)
    dtype = min(x_BTI.dtype, weight_IO.dtype, key=lambda dtype: dtype.itemsize)
    multiply = functools.partial(einsum_float32, "BTI,IO->BTO")
    return _two_rows(multiply, x_BTI.astype(dtype), weight_IO.astype(dtype))


@jax.custom_vjp
def _project(x_BTI: jax.Array, weight_IO: jax.Array) -> jax.Array:
    return _two_rows(functools.partial(einsum, "BTI,IO->BTO"), x_BTI, weight_IO)


def _project_forward(x_BTI: jax.Array, weight_IO: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _project(x_BTI, weight_IO), (x_BTI, weight_IO)


def _project_backward(operands: tuple[jax.Array, jax.Array], cotangent_BTO: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The weight's gradient takes x first.

    In a product over rows, XLA:CPU transposes the first operand together with the operations that compute it, which
    then run along columns. In JAX's own weight gradient, this operand is the cotangent, which results from a chain of
    operations. Here it is x, which is already computed.
    """
    x_BTI, weight_IO = operands
    return einsum("BTO,IO->BTI", cotangent_BTO, weight_IO), einsum("BTI,BTO->IO", x_BTI, cotangent_BTO)


_project.defvjp(_project_forward, _project_backward)


@jax.custom_vjp
def _project_widened(x_BTI: jax.Array, weight_IO: WidenedInt8) -> jax.Array:
    """x · weight for a frozen weight. The narrow weight is kept for the backward pass, not the widened one."""
    return _two_rows(functools.partial(einsum, "BTI,IO->BTO"), x_BTI, widened(weight_IO, x_BTI.dtype))


def _project_widened_forward(x_BTI: jax.Array, weight_IO: WidenedInt8) -> tuple[jax.Array, WidenedInt8]:
    return _project_widened(x_BTI, weight_IO), weight_IO


def _project_widened_backward(weight_IO: WidenedInt8, cotangent_BTO: jax.Array) -> tuple[jax.Array, None]:
    return einsum("BTO,IO->BTI", cotangent_BTO, widened(weight_IO, cotangent_BTO.dtype)), None


_project_widened.defvjp(_project_widened_forward, _project_widened_backward)


@jax.custom_vjp
def float8_product(x_BTI: jax.Array, weight_IO: jax.Array) -> jax.Array:
    """x · weight, of arrays of one dtype and in that dtype, each operand rounded to 8-bit floats (see float8.py)."""
    return _float8_forward(x_BTI, weight_IO)[0]


def _float8_forward(x_BTI: jax.Array, weight_IO: jax.Array) -> tuple[jax.Array, tuple[Float8, Float8]]:
    dtype, operands = x_BTI.dtype, (rounded(x_BTI, OPERAND), rounded(weight_IO, OPERAND))
    return einsum("BTI,IO->BTO", *(operand.widened(dtype) for operand in operands)), operands


def _float8_backward(operands: tuple[Float8, Float8], cotangent_BTO: jax.Array) -> tuple[jax.Array, jax.Array]:
    dtype = cotangent_BTO.dtype
    x_BTI, weight_IO = (operand.widened(dtype) for operand in operands)
    gradient_BTO = rounded(cotangent_BTO, GRADIENT).widened(dtype)
    return einsum("BTO,IO->BTI", gradient_BTO, weight_IO), einsum("BTI,BTO->IO", x_BTI, gradient_BTO)


float8_product.defvjp(_float8_forward, _float8_backward)


def _two_rows(multiply: Callable, x_BTI: jax.Array, weight_IO: jax.Array | Int8) -> jax.Array:
    """multiply(x, weight); on a CPU a single row of a narrow weight is multiplied twice, which is ten times faster."""
    if x_BTI.shape[0] * x_BTI.shape[1] > 1 or weight_IO.dtype == jnp.float32:
        return multiply(x_BTI, weight_IO)

    def twice(x_BTI: jax.Array, weight_IO: jax.Array) -> jax.Array:
        return multiply(jnp.broadcast_to(x_BTI, (2, *x_BTI.shape[1:])), weight_IO)[:1]

    return jax.lax.platform_dependent(x_BTI, weight_IO, cpu=twice, default=multiply)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def over_rows(vector_D: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The vector in every row of an array [..., D]."""
    return jnp.broadcast_to(vector_D, shape)


def _over_rows_forward(vector_D: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, None]:
    return over_rows(vector_D, shape), None


def _over_rows_backward(shape: tuple[int, ...], _: Any, cotangent: jax.Array) -> tuple[jax.Array]:
    """The sum of the rows. On a CPU it is a product with ones: XLA sums bfloat16 rows on one core, element by
    element."""
    rows = tuple(range(len(shape) - 1))

    def multiplied(cotangent: jax.Array) -> jax.Array:
        ones = jnp.ones((2, *shape[:-1]), cotangent.dtype)  # two, as above
        dimensions = ((tuple(axis + 1 for axis in rows), rows), ((), ()))
        return jax.lax.dot_general(ones, cotangent, dimensions, preferred_element_type=jnp.float32)[0]

    def summed(cotangent: jax.Array) -> jax.Array:
        return jnp.sum(cotangent, axis=rows, dtype=jnp.float32)

    total = jax.lax.platform_dependent(cotangent, cpu=multiplied, default=summed)
    return (total.astype(cotangent.dtype),)


over_rows.defvjp(_over_rows_forward, _over_rows_backward)
