"""Matrix products whose gradients are written out: what a compiler makes of JAX's own is slower."""

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def project(subscripts: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """einsum of activations with a weight, in their dtype. JAX's own values and, rounding apart, its gradients.

    A product over rows has its first operand transposed by XLA:CPU, together with what computes it, which then runs
    down the columns. In JAX's own weight gradient that is the cotangent, at the end of a chain of operations; here it
    is x, which is there.
    """
    return jnp.einsum(subscripts, x, weight)


def _project_forward(subscripts, x, weight):
    return project(subscripts, x, weight), (x, weight)


def _project_backward(subscripts, operands, cotangent):
    x, weight = operands
    operand_axes, output = subscripts.split("->")
    inputs, weights = operand_axes.split(",")
    x_cotangent = jnp.einsum(f"{output},{weights}->{inputs}", cotangent, weight)
    return x_cotangent, jnp.einsum(f"{inputs},{output}->{weights}", x, cotangent)


project.defvjp(_project_forward, _project_backward)
