"""How a mesh divides the work of a model. `gptjax/model/placement.py` has the form for one device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gptjax.model.placement import Placement
from gptjax.parallel import context, expert, sequence, vocabulary
from gptjax.parallel.kernel import divided
from gptjax.parallel.mesh import AXES, compiler_axes
from gptjax.parallel.pipeline import AXIS, pipelined, schedule_of
from gptjax.settings import MeshSettings


@dataclasses.dataclass(frozen=True)
class MeshPlacement(Placement):
    """Divides work over the current mesh of tracing (`jax.set_mesh`).

    Attributes:
      config: the `mesh` section. The sizes of the axes are read from the mesh itself.
    """

    config: MeshSettings

    def residual(self, x_BTD: jax.Array) -> jax.Array:
        """Pins rows and tokens to the axes that divide them, so that the compiler never replicates them."""
        spec = sequence.residual_spec(x_BTD.shape)
        return x_BTD if spec is None else jax.lax.with_sharding_constraint(x_BTD, spec)

    def gathered(self, x_BTD: jax.Array) -> jax.Array:
        """Gathers all tokens on each of the devices that divide a sub-layer's matrices."""
        return sequence.gathered(x_BTD)

    def scattered(self, x_BTD: jax.Array) -> jax.Array:
        """Sums the partial outputs of a sub-layer, and leaves each of these devices some of the tokens."""
        return sequence.scattered(x_BTD)

    def lookup(
        self, function: Callable[..., jax.Array], tables: Sequence[jax.Array], indices: Sequence[jax.Array]
    ) -> jax.Array:
        """Leaves the columns of tables where they are, and sends the looked-up vectors."""
        return vocabulary.looked_up(function, tables, indices)

    def attention(
        self,
        function: Callable[..., jax.Array],
        q_BTNH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        **options: Any,
    ) -> jax.Array:
        """Lets tokens attend to tokens on other devices, if sequences are divided.

        Inside a `shard_map`, a kernel that the compiler cannot divide is called on each device's own rows and heads.
        """
        mesh = jax.sharding.get_abstract_mesh()
        if options["backend"] == "cudnn" and mesh.manual_axes and compiler_axes(AXES):
            function = functools.partial(divided, function)
        if mesh.shape.get("tensor", 1) > 1 and options.get("branches") is not None:
            options["heads_in_turn"] = False
        if mesh.shape.get(context.AXIS, 1) == 1:
            return function(q_BTNH, k_BSKH, v_BSKH, **options)
        if context.way_of(self.config, mesh, q_BTNH.shape[2]) == "all_to_all":
            return context.over_heads(function, q_BTNH, k_BSKH, v_BSKH, **options)
        return context.in_ring(q_BTNH, k_BSKH, v_BSKH, **options)

    def experts(
        self, function: Callable, x_BTD: jax.Array, real_BT: jax.Array, weights: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Lets each device route its own tokens, and divides the experts if several devices hold them."""
        if jax.sharding.get_abstract_mesh().empty:
            return function(x_BTD, real_BT, weights)
        return expert.divided(function, x_BTD, real_BT, weights, self.config.expert_exchange)

    def layers(
        self, run: Callable, layers: Any, x_BTD: jax.Array, seen: Any, keys_LB: jax.Array | None, *, keep: Callable
    ) -> tuple[jax.Array, Any]:
        """Divides the layers over the stages of a pipeline, if there are several."""
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.shape.get(AXIS, 1) == 1:
            return run(layers, x_BTD, seen, keys_LB)
        return pipelined(run, layers, x_BTD, seen, keys_LB, schedule=schedule_of(self.config, mesh), keep=keep)
