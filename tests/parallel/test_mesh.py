"""Mesh shapes, and the errors for meshes that do not fit the devices."""

import math

import jax
import pytest
from jax.sharding import AxisType

from gptjax.config import ConfigError, default
from gptjax.parallel.mesh import batch_devices, make_mesh, mesh_shape


def mesh_config(**sizes):
    config = default().mesh
    config.update(sizes)
    return config


@pytest.mark.parametrize(
    "sizes, shape",
    [
        (dict(), (8, 1, 1)),
        (dict(data=1, fsdp=-1), (1, 8, 1)),
        (dict(fsdp=2, tensor=2), (2, 2, 2)),
        (dict(data=1, fsdp=4, tensor=2), (1, 4, 2)),
    ],
)
def test_the_free_axis_takes_the_remaining_devices(sizes, shape):
    found = mesh_shape(mesh_config(**sizes), 8)
    assert tuple(found[axis] for axis in ("data", "fsdp", "tensor")) == shape
    assert set(found.values()) <= {1, *shape} and math.prod(found.values()) == 8


@pytest.mark.parametrize(
    "sizes, message",
    [
        (dict(data=16), "is for 16 devices, and this run has 8"),
        (dict(data=1), "is for 1 device, and this run has 8"),
        (dict(tensor=3), "multiple of 3 devices, and this run has 8"),
        (dict(fsdp=-1), "only one axis may be -1"),
        (dict(fsdp=0), "mesh.fsdp = 0"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        mesh_shape(mesh_config(**sizes), 8)


def test_axes_are_auto_and_rows_split_over_data_and_fsdp():
    mesh = make_mesh(mesh_config(fsdp=2, tensor=2), jax.devices())
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert batch_devices(mesh) == 4
