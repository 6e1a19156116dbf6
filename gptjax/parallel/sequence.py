"""The residual stream divided along the sequence over the mesh axis `tensor`: sequence parallelism.

Tensor parallelism divides the matrices of attention and of the feed-forward layer. Between these sub-layers, each of
its devices would hold and normalize the same tokens. Here each holds a contiguous part of them instead. It gathers the
other tokens before a sub-layer (`gathered`), and after it receives the sum of its own tokens over all devices
(`scattered`). Together these send as many bytes as the all-reduce that they replace (Korthikanti et al. 2022,
arXiv:2205.05198, section 4.2.2).

A sequence whose length does not divide, such as the single token of a decoding step, stays whole on every device.
"""

from __future__ import annotations

import functools
import math

import jax
from jax.sharding import PartitionSpec as P

from gptjax.parallel.mesh import BATCH_AXES, compiler_axes

TOKEN_AXES = ("context", "tensor")


def residual_spec(shape: tuple[int, ...]) -> P | None:
    """How the residual stream [B, T, D] is divided between sub-layers; None without a mesh."""
    mesh, rows = jax.sharding.get_abstract_mesh(), compiler_axes(BATCH_AXES)
    if not rows:
        return None
    axes = compiler_axes(TOKEN_AXES)
    divides = shape[1] % math.prod(mesh.shape[axis] for axis in axes) == 0
    return P(rows, axes if divides else compiler_axes(TOKEN_AXES[:1]), None)


def gathered(x_BTD: jax.Array) -> jax.Array:
    """The input of a sub-layer, with all tokens on every device of `tensor`. Its gradient is scattered."""
    parts = residual_spec(x_BTD.shape)
    return x_BTD if parts is None else _moved(parts, _whole(parts), x_BTD)


def scattered(x_BTD: jax.Array) -> jax.Array:
    """The output of a sub-layer, of which every device of `tensor` keeps some tokens. Its gradient is gathered."""
    parts = residual_spec(x_BTD.shape)
    return x_BTD if parts is None else _moved(_whole(parts), parts, x_BTD)


def _whole(parts: P) -> P:
    return P(parts[0], compiler_axes(TOKEN_AXES[:1]), None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _moved(before: P, after: P, x_BTD: jax.Array) -> jax.Array:
    """The same array, divided as `after`; its gradient is divided as `before`.

    (A plain constraint would divide the gradient as `after`, too. For `gathered`, every device would receive the sums
    of all tokens and use only its own. Without the barrier, the compiler would send a norm's float32 output before it
    is rounded, which takes twice as many bytes.)
    """
    return jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(x_BTD), after)


def _forward(before: P, after: P, x_BTD: jax.Array) -> tuple[jax.Array, None]:
    return _moved(before, after, x_BTD), None


def _backward(before: P, after: P, residuals: None, gradient_BTD: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient_BTD, before),)


_moved.defvjp(_forward, _backward)
