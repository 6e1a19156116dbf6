"""The one table: parameter path → PartitionSpec.

Every parameter matches exactly one row (a test says so). Matrices are split twice: the model width over `fsdp` (the
compiler gathers them where they are used and scatters the gradients), heads and feed-forward columns over `tensor`
(one all-reduce a sub-layer). Vectors are copied. The stack axis L is never split: a scan walks along it.

The embedding is split along its width, not its vocabulary: a lookup in a table that is split by rows makes the
compiler gather the whole of it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from gptjax.config import ConfigError
from gptjax.parallel.mesh import BATCH_AXES
from gptjax.tree import leaves_by_path, map_with_path

P = PartitionSpec

TABLE: tuple[tuple[str, PartitionSpec], ...] = (
    (r"embedding", P(None, ("fsdp", "tensor"))),  # [V, D]
    (r"positions", P(None, ("fsdp", "tensor"))),  # [P, D]
    (r"head", P("fsdp", "tensor")),  # [D, V]
    (r"layers/attention/(query|key|value)", P(None, "fsdp", "tensor", None)),  # [L, D, N, H]
    (r"layers/attention/(query|key|value)_bias", P(None, "tensor", None)),  # [L, N, H]
    (r"layers/attention/output", P(None, "tensor", None, "fsdp")),  # [L, N, H, D]
    (r"layers/attention/output_bias", P()),
    (r"layers/feedforward/(gate|up)", P(None, "fsdp", "tensor")),  # [L, D, F]
    (r"layers/feedforward/(gate|up)_bias", P(None, "tensor")),  # [L, F]
    (r"layers/feedforward/down", P(None, "tensor", "fsdp")),  # [L, F, D]
    (r"layers/feedforward/down_bias", P()),
    (r"(layers/)?\w*norm/(scale|bias)", P()),
    (r"layers/attention/(query|key)_norm/scale", P()),
)


def matching_rows(path: str) -> list[PartitionSpec]:
    """The specs of all rows whose pattern is the whole path."""
    return [spec for pattern, spec in TABLE if re.fullmatch(pattern, path)]


def spec_of(path: str) -> PartitionSpec:
    """The one row for a parameter.

    Raises:
      ConfigError: no row, or more than one, matches: the table has to be mended.
    """
    rows = matching_rows(path)
    if len(rows) != 1:
        mend = "add a row that says over which mesh axes each of its axes is split" if not rows else "mend them"
        raise ConfigError(
            f"parameter {path!r} matches {len(rows)} rows of TABLE in gptjax/parallel/sharding.py, and must match "
            f"exactly one: {mend}"
        )
    return rows[0]


def _axes(entry) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def params_sharding(mesh: Mesh | AbstractMesh, params: Any) -> Any:
    """NamedShardings for a tree of parameters (arrays or shapes).

    Raises:
      ConfigError: a split axis is not divisible by the devices it is split over.
    """

    def leaf(path: str, value):
        spec = spec_of(path)
        for size, entry in zip(value.shape, spec):
            ways = math.prod(mesh.shape[axis] for axis in _axes(entry))
            if size % ways:
                names = " x ".join(f"mesh.{axis} = {mesh.shape[axis]}" for axis in _axes(entry))
                raise ConfigError(
                    f"{path} has shape {tuple(value.shape)}: the axis of size {size} is not divisible by {names}"
                )
        return NamedSharding(mesh, spec)

    return map_with_path(leaf, params)


def state_sharding(mesh: Mesh | AbstractMesh, abstract_state: Any) -> Any:
    """NamedShardings for a whole training state.

    Optimizer statistics mirror the parameters inside Optax's own tuples; each is split as the parameter whose path ends
    its own path and whose shape it has. Whatever mirrors no parameter (counters, factored statistics) is copied.
    """
    shapes = {path: leaf.shape for path, leaf in leaves_by_path(abstract_state.params).items()}
    params_sharding(mesh, abstract_state.params)  # divisibility, with a message that names the parameter

    def leaf(path: str, value):
        parts = path.split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            if shapes.get(tail) == value.shape:
                return NamedSharding(mesh, spec_of(tail))
        return NamedSharding(mesh, P())

    return map_with_path(leaf, abstract_state)


def batch_sharding(mesh: Mesh | AbstractMesh, leading_axes: int = 0) -> NamedSharding:
    """Rows over the batch axes; `leading_axes` (the micro-batches of an accumulated step) are not split."""
    return NamedSharding(mesh, P(*(None,) * leading_axes, BATCH_AXES))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def constrain_residual(x_BTD: jax.Array) -> jax.Array:
    """Pins the residual stream to the batch axes of the mesh in force, so that the compiler never replicates it."""
    if jax.sharding.get_abstract_mesh().empty:
        return x_BTD
    return jax.lax.with_sharding_constraint(x_BTD, P(BATCH_AXES, None, None))
