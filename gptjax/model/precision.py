"""Matrix products between low-precision operands whose result is needed in float32."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def einsum_float32(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """einsum of two arrays of one dtype, accumulated and returned in float32.

    JAX's own gradient of such a product multiplies the float32 cotangent with the low-precision operand, which sends
    two products of three down the float32 units. Here the cotangent is rounded to the operands' dtype first, as in
    every other layer; with float32 operands nothing differs.
    """
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


def _forward(subscripts, a, b):
    return einsum_float32(subscripts, a, b), (a, b)


def _backward(subscripts, operands, cotangent):
    a, b = operands
    _, pullback = jax.vjp(functools.partial(jnp.einsum, subscripts), a, b)
    return pullback(cotangent.astype(a.dtype))


einsum_float32.defvjp(_forward, _backward)
