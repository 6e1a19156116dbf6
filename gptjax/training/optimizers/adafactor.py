"""Adafactor: stores the second moment of a matrix as one number per row and one per column.

    R ← β2 R + (1 - β2) mean over columns of G²        β2 = min(1 - t^-0.8, 0.999) at update t
    C ← β2 C + (1 - β2) mean over rows of G²
    U = G / sqrt(R C / mean R)                          update = U / max(1, RMS(U))
    M ← β1 M + (1 - β1) update                          the direction of descent if beta1 > 0

The factors, the growing β2 and the clipping of each update are from Shazeer and Stern (arXiv:1804.04235). Zhai et al.
(arXiv:2106.04560, section 3.3) changed the method for large models: β2 has a limit, steps are not scaled by the size of
the parameter, so that learning rates mean the same as for AdamW, and there is momentum, which is not bias-corrected and
may be stored in bfloat16. Their released code (Big Vision) has the same constants and clips only on request; here
updates are always clipped, as in the first paper. For vectors, and matrices whose shorter side is below 32, the second
moment of every entry is stored.

Optax's own `scale_by_factored_rms` factors the two longest axes. In parameters stacked over many layers, one of these
axes may be the layers, and in attention's [L, D, N, H] they split a head. Here each layer is a separate matrix with the
inputs and outputs that its declaration names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gptjax.model.parameters import Parameter
from gptjax.model.tree import map_with_path

DECAY_EXPONENT = 0.8
LARGEST_DECAY = 0.999
FACTORED_FROM = 32  # entries of the shorter side
SMALLEST_SQUARE = 1e-30  # added to G², so that a zero gradient is not divided by zero


class FactoredState(NamedTuple):
    """count: updates so far. Each parameter has rows [L, in] and columns [L, out], or `whole`; unused arrays are
    [1]."""

    count: jax.Array  # type: ignore[assignment]  # hides the tuple's unused method
    rows: optax.Updates
    columns: optax.Updates
    whole: optax.Updates


def scale_by_adafactor(parameters: Mapping[str, Parameter]) -> optax.GradientTransformation:
    """Gradient → update, without momentum. parameters: path → declaration."""

    def matrices(path: str, x: jax.Array) -> jax.Array | None:
        """[L, in, out], or None if it is not factored."""
        if parameters[path].kind == "vector":
            return None
        stacked = parameters[path].as_matrices(x)
        return stacked if min(stacked.shape[1:]) >= FACTORED_FROM else None

    def init_leaf(path: str, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        unused = jnp.zeros(1, x.dtype)
        stacked = matrices(path, x)
        if stacked is None:
            return unused, unused, jnp.zeros_like(x)
        return jnp.zeros_like(stacked[:, :, 0]), jnp.zeros_like(stacked[:, 0, :]), unused

    def update_leaf(
        path: str, gradient: jax.Array, rows: jax.Array, columns: jax.Array, whole: jax.Array, decay: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """The clipped update of a parameter, and its new statistics."""
        stacked = matrices(path, gradient)
        if stacked is None:
            whole = decay * whole + (1 - decay) * (jnp.square(gradient) + SMALLEST_SQUARE)
            return _clipped(parameters[path], gradient * jax.lax.rsqrt(whole)), rows, columns, whole
        square = jnp.square(stacked) + SMALLEST_SQUARE
        rows = decay * rows + (1 - decay) * square.mean(axis=2)
        columns = decay * columns + (1 - decay) * square.mean(axis=1)
        by_row = jax.lax.rsqrt(rows / rows.mean(axis=1, keepdims=True))
        update = stacked * by_row[:, :, None] * jax.lax.rsqrt(columns)[:, None, :]
        return _clipped(parameters[path], update.reshape(gradient.shape)), rows, columns, whole

    def init(params: Any) -> FactoredState:
        return FactoredState(jnp.zeros((), jnp.int32), *_unzip(map_with_path(init_leaf, params), params, 3))

    def update(gradients: Any, state: FactoredState, params: Any = None) -> tuple[Any, FactoredState]:
        decay = decay_of(state.count)
        made = map_with_path(
            lambda path, gradient, rows, columns, whole: update_leaf(path, gradient, rows, columns, whole, decay),
            gradients,
            state.rows,
            state.columns,
            state.whole,
        )
        updates, *statistics = _unzip(made, gradients, 4)
        return updates, FactoredState(state.count + 1, *statistics)

    return optax.GradientTransformation(init, update)


def decay_of(count: jax.Array) -> jax.Array:
    """β2 after `count` updates; 0 for the first one."""
    return jnp.minimum(1.0 - (count.astype(jnp.float32) + 1.0) ** -DECAY_EXPONENT, LARGEST_DECAY)


def _clipped(parameter: Parameter, update: jax.Array) -> jax.Array:
    """Scales the update so that the RMS of each member of the parameter's stack is at most one."""
    axes = tuple(range(len(parameter.stack), update.ndim))
    return update / jnp.maximum(1.0, jnp.sqrt(jnp.mean(jnp.square(update), axis=axes, keepdims=True)))


def _unzip(tuples: Any, like: Any, count: int) -> list:
    """Splits a tree of tuples into one tree per position in the tuples."""
    return [jax.tree.map(lambda _, each, i=i: each[i], like, tuples) for i in range(count)]
