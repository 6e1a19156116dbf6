"""The places in a model at which a mesh of devices has its say.

A model knows nothing of devices. Where it matters how its work is divided, it calls a method of its `placement`. Here
each method does what one device does; `gptjax/parallel/placement.py` has the methods of a mesh. They compute the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Placement:
    """One device. Hashable, as all attributes of a Linen module are."""

    def residual(self, x_BTD: jax.Array) -> jax.Array:
        """The residual stream, after the embedding and after every block."""
        return x_BTD

    def gathered(self, x_BTD: jax.Array) -> jax.Array:
        """The residual stream as attention, the feed-forward layer and the head read it."""
        return x_BTD

    def scattered(self, x_BTD: jax.Array) -> jax.Array:
        """The output of attention or of the feed-forward layer, before it is added to the residual stream."""
        return x_BTD

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
        """`run(layers, x_BTD, seen, keys_LB)`, which runs any number of layers that follow each other.

        keep: the policy of `jax.checkpoint` for several layers (`rematerialization.kept_of_layers`).
        """
        return run(layers, x_BTD, seen, keys_LB)


ONE_DEVICE = Placement()
