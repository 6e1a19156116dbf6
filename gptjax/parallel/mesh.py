"""Devices arranged on named axes.

`data` splits the batch and keeps whole parameters; `fsdp` splits the batch *and* the parameters (gathered where they
are used); `tensor` splits heads and feed-forward columns; `context` splits sequences; `expert` splits the batch and the
experts of a mixture; `pipeline` splits the layers, and the batch before and after them. Parameters that are split over
`fsdp` are also split over `context` and `expert`. An axis of size 1 costs nothing, so the mesh always has all of them.

Devices with consecutive numbers, such as those of one machine, are neighbours along the last axes. The axes along which
devices send the most come last.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh

from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.settings import MeshSettings, TrainingSettings

AXES = ("pipeline", "data", "fsdp", "expert", "context", "tensor")
# The order of the axes in a Mesh; devices are numbered in that of AXES. A `shard_map` over `data` or `pipeline` has
# all others inside, and XLA (jaxlib 0.12) ends the process if an axis of an inner one comes before one of an outer one.
OUTER_FIRST = ("data", *(axis for axis in AXES if axis != "data"))
AUTO = (AxisType.Auto,) * len(AXES)
BATCH_AXES = ("pipeline", "data", "fsdp", "expert")  # the axes over which the rows of a batch are split


@dataclasses.dataclass(frozen=True)
class AbstractDevices:
    """A description of devices that this process does not have.

    Attributes:
      platform: 'cpu', 'gpu' or 'tpu'; '' if unknown.
      count: number of devices; None: the fewest that a config's mesh allows.
      kind: JAX's name of their kind, such as 'NVIDIA H200'; '' if unknown.
    """

    platform: str = ""
    count: int | None = None
    kind: str = ""


def mesh_shape(config_mesh: MeshSettings, num_devices: int) -> dict[str, int]:
    """Sizes of the axes for `num_devices`; the one axis given as -1 takes the remaining devices.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices.
    """
    sizes = {axis: int(config_mesh[axis]) for axis in AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ConfigError(f"mesh: only one axis may be -1 (all remaining devices), got {' and '.join(free)}")
    for axis, size in sizes.items():
        if size < 1 and size != -1:
            raise ConfigError(
                f"mesh.{axis} = {size}: must be a positive number of devices, or -1 for all remaining ones"
            )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    described = ", ".join(f"{axis} = {size}" for axis, size in sizes.items() if size != 1) or "data = 1"
    if free:
        if num_devices % fixed:
            raise ConfigError(
                f"mesh ({described}): the fixed axes need a multiple of {counted(fixed, 'device')}, "
                f"and this run has {num_devices}"
            )
        sizes[free[0]] = num_devices // fixed
    elif fixed != num_devices:
        raise ConfigError(
            f"mesh ({described}) is for {counted(fixed, 'device')}, and this run has {num_devices}; "
            "set one axis to -1 to give it all remaining devices"
        )
    return sizes


def make_mesh(config_mesh: MeshSettings, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a config over `devices` (all of them by default).

    The axes are `Auto`: the compiler propagates the shardings, starting from the table of `sharding.py`. (The default
    of `jax.make_mesh`, `Explicit`, does not work with Linen and parts of Optax.)
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config_mesh, len(devices))
    numbered = jax.make_mesh(tuple(shape.values()), AXES, axis_types=AUTO, devices=devices)
    return Mesh(np.moveaxis(numbered.devices, AXES.index("data"), 0), OUTER_FIRST, axis_types=AUTO)


def abstract_mesh(config_mesh: MeshSettings, devices: AbstractDevices) -> AbstractMesh:
    """Like `make_mesh`, over devices that are only described: it can shard shapes, but not hold arrays."""
    fixed = math.prod(max(1, int(config_mesh[axis])) for axis in AXES)
    shape = mesh_shape(config_mesh, fixed if devices.count is None else devices.count)
    return AbstractMesh(tuple(shape[axis] for axis in OUTER_FIRST), OUTER_FIRST, axis_types=AUTO)


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
    """The number of devices over which the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def rows_at_once(training: TrainingSettings) -> int:
    """The number of rows of a micro-batch."""
    return training.batch_size // training.gradient_accumulation_steps


def rows_at_once_text(training: TrainingSettings) -> str:
    """Begins a message about the rows of a micro-batch."""
    steps = training.gradient_accumulation_steps
    divided = f" with training.gradient_accumulation_steps = {steps}, {rows_at_once(training)} rows at once"
    return f"training.batch_size = {training.batch_size}{divided if steps > 1 else ''}"


def compiler_axes(axes: Sequence[str]) -> tuple[str, ...]:
    """Those of `axes` over which the compiler divides the work at this point of a program, which excludes the axes of a
    surrounding `shard_map`. Empty without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in axes if axis in mesh.axis_names and axis not in mesh.manual_axes)


def platform_of(mesh: Mesh | AbstractMesh) -> str:
    """'cpu', 'gpu' or 'tpu'; '' for an abstract mesh, whose platform is unknown."""
    return mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else ""
