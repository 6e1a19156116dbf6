"""How a mesh divides the work inside of a model: see `gptjax/model/placement.py`, of which this is the other form."""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import PartitionSpec as P

from gptjax.model.placement import Placement
from gptjax.parallel.mesh import BATCH_AXES


@dataclasses.dataclass(frozen=True)
class MeshPlacement(Placement):
    """The mesh in force when the model is traced (`jax.set_mesh`); none: one device."""

    def residual(self, x_BTD: jax.Array) -> jax.Array:
        """Pins the rows to the batch axes, so that the compiler never replicates them."""
        if jax.sharding.get_abstract_mesh().empty:
            return x_BTD
        return jax.lax.with_sharding_constraint(x_BTD, P(BATCH_AXES, None, None))
