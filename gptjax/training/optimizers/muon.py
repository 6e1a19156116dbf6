"""Muon: momentum whose matrices are orthogonalized before they are applied (Jordan et al., 2024).

    M ← μ M + G          update = − η · sqrt(max(1, out / in)) · orthogonalize(G + μ M)

Orthogonalizing replaces every singular value by about one: all directions of a matrix move equally far, however small
their part of the gradient is. An orthogonal [in, out] matrix has an entry RMS of 1 / sqrt(max(in, out)); with the
factor above, it is 1 / sqrt(in) for *every* matrix. η therefore has the same meaning for all shapes and widths: the RMS
step relative to a variance-preserving weight (whose standard deviation is 1 / sqrt(in)). An AdamW step of learning rate
a has an RMS of about 0.2 a (Liu et al., arXiv:2502.16982): the corresponding Muon step at width D is η = 0.2 a ·
sqrt(D).

Stacked parameters are batches of matrices; attention's are merged to two axes first ([D, N, H] → [D, N·H]). The
iteration consists of matrix products, so it runs in bfloat16 on accelerators. On a mesh, each device processes whole
matrices of the stack by itself: the partitioner by itself would gather every matrix on every device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gptjax.model.parameters import Parameter
from gptjax.model.tree import map_with_path
from gptjax.parallel.sharding import spec_of

P = jax.sharding.PartitionSpec

# A quintic polynomial with the largest possible slope at zero: five iterations bring singular values from [0.01, 1] to
# about [0.7, 1.2], which works as well as exactly one (Jordan et al., https://kellerjordan.github.io/posts/muon).
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalize(x_LIO: jax.Array, pin: Callable[[jax.Array], jax.Array] = lambda x: x) -> jax.Array:
    """U f(S) Vᵀ of each matrix U S Vᵀ in the stack, f(S) ≈ 1: the Newton–Schulz iteration, in the dtype of x_LIO.

    Every product is with the Gram matrix of the shorter side. A matrix of zeros stays zero.

    Args:
      pin: keeps an array [L, _, _] on the devices of its matrices. The squares and their sums are pinned, so that each
        device sums whole matrices: no partial sums are added over devices, which a partitioner could count twice.
    """
    wide = x_LIO.shape[1] <= x_LIO.shape[2]
    x = x_LIO if wide else x_LIO.mT
    x = x / (_norms(x.astype(jnp.float32), pin) + 1e-12).astype(x.dtype)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = _apart(x @ x.mT)
        x = a * x + _apart(b * gram + c * (gram @ gram)) @ x
    return x if wide else x.mT


def _apart(x: jax.Array) -> jax.Array:
    """The same numbers, made by a kernel of their own.

    On processors, XLA's library YNNPACK merges chained products of square matrices into one loop, and computes some of
    them many times: experiments/plan measured 4 to 10 times the time. It does not merge this rounding, which changes
    no number.
    """
    form = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, form.nexp, form.nmant)


# Compiled separately: fused with other work, XLA would sum in a different order.
@functools.partial(jax.jit, static_argnames="pin")
def _norms(x_LIO: jax.Array, pin: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The Frobenius norm of each matrix, [L, 1, 1]."""
    return jnp.sqrt(pin(jnp.sum(pin(x_LIO * x_LIO), axis=(1, 2), keepdims=True)))


def scale_by_orthogonalization(parameters: Mapping[str, Parameter], dtype: Any) -> optax.GradientTransformation:
    """Orthogonalizes every leaf in `dtype` and scales it to an entry RMS of about 1 / sqrt(in). Stateless.

    parameters: path → declaration of a matrix; each matrix of its stack is orthogonalized separately.
    """

    def update_leaf(path: str, x: jax.Array) -> jax.Array:
        matrices_LIO = parameters[path].as_matrices(x)
        _, fan_in, fan_out = matrices_LIO.shape
        # Scaled first so that the largest entry is one: squares of small gradients would underflow in the norm.
        largest = jnp.max(jnp.abs(matrices_LIO), axis=(1, 2), keepdims=True)
        matrices_LIO = (matrices_LIO / jnp.where(largest > 0, largest, 1.0)).astype(dtype)
        orthogonal_LIO = _on_whole_matrices(matrices_LIO)
        update = _back_to_its_own_sharding(orthogonal_LIO.reshape(x.shape), parameters[path])
        return update.astype(x.dtype) * math.sqrt(max(1.0, fan_out / fan_in))

    return optax.stateless(lambda updates, params: map_with_path(update_leaf, updates))


def _on_whole_matrices(x_LIO: jax.Array) -> jax.Array:
    """`orthogonalize`, with the stack spread over all devices of the current mesh (padded with zeros to divide).

    The mesh's axes are moved to the stack axis and back one at a time. Each move is an all-to-all (or, for an axis over
    which the stack was replicated, nothing on the way in and an all-gather on the way out). If all axes moved at once,
    the partitioner would find no such path and copy every matrix to every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis, size in mesh.shape.items() if size > 1)
    if not axes:
        return orthogonalize(x_LIO)

    def on_stack(x: jax.Array, num_axes: int) -> jax.Array:
        rest = None if num_axes == len(axes) else P.UNCONSTRAINED
        return jax.lax.with_sharding_constraint(x, P(axes[:num_axes], rest, rest))

    num_matrices = x_LIO.shape[0]
    x = jnp.pad(x_LIO, ((0, -num_matrices % mesh.size), (0, 0), (0, 0)))
    for num_axes in range(1, len(axes) + 1):
        x = on_stack(x, num_axes)
    x = orthogonalize(x, pin=lambda x: on_stack(x, len(axes)))
    for num_axes in range(len(axes), 0, -1):
        x = on_stack(x, num_axes)
    return x[:num_matrices]


def _back_to_its_own_sharding(update: jax.Array, parameter: Parameter) -> jax.Array:
    """Moves the update to its parameter's sharding while it is still in the narrow dtype."""
    mesh = jax.sharding.get_abstract_mesh()
    return update if mesh.empty else jax.lax.with_sharding_constraint(update, spec_of(parameter, mesh))
