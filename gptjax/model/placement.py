"""The places in a model where its work can be divided over devices.

A model does not depend on devices. Where the division of work matters, it calls a method of its `placement`. The
methods in this file are for one device. Those in `gptjax/parallel/placement.py` compute the same on a mesh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Placement:
    """The form for one device. It is hashable, as attributes of a Linen module must be."""

    def residual(self, x_BTD: jax.Array) -> jax.Array:
        """The residual stream, after the embedding and after every block."""
        return x_BTD

    def gathered(self, x_BTD: jax.Array) -> jax.Array:
        """The residual stream as attention, the feed-forward layer and the head read it."""
        return x_BTD

    def scattered(self, x_BTD: jax.Array) -> jax.Array:
        """The output of attention or of the feed-forward layer, before it is added to the residual stream."""
        return x_BTD

    def lookup(
        self, function: Callable[..., jax.Array], tables: Sequence[jax.Array], indices: Sequence[jax.Array]
    ) -> jax.Array:
        """`function(tables, indices)`, [B, T, D], of tables [rows, D] and indices [B, T], or [1, T] if they are the
        same in all rows.

        The function treats all columns of the tables alike, so that it can be called with some of them.
        """
        return function(tables, indices)

    def attention(
        self,
        function: Callable[..., jax.Array],
        q_BTNH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        **options: Any,
    ) -> jax.Array:
        """`function(q, k, v, **options)`, which is `attention` of model/attention.py."""
        return function(q_BTNH, k_BSKH, v_BSKH, **options)

    def experts(
        self, function: Callable, x_BTD: jax.Array, real_BT: jax.Array, weights: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """`function(x, real, weights)`, which is `mixture` of model/mixture_of_experts.py."""
        return function(x_BTD, real_BT, weights)

    def layers(
        self, run: Callable, layers: Any, x_BTD: jax.Array, seen: Any, keys_LB: jax.Array | None, *, keep: Callable
    ) -> tuple[jax.Array, Any]:
        """`run(layers, x_BTD, seen, keys_LB)`, which runs any number of consecutive layers.

        keep: the policy of `jax.checkpoint` for several layers (`rematerialization.kept_of_layers`).
        """
        return run(layers, x_BTD, seen, keys_LB)


ONE_DEVICE = Placement()
