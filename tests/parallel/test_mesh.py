"""Mesh shapes, and the errors for meshes that do not fit the devices."""

import math

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from gptjax.config import ConfigError, default
from gptjax.parallel.mesh import AbstractDevices, abstract_mesh, batch_devices, make_mesh, mesh_shape


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


def test_neighbours_are_numbered_along_the_last_axes_and_a_pipeline_has_the_most_distant_devices():
    """The axes of the mesh itself come in another order."""
    sizes = dict(pipeline=2, data=2, fsdp=1, expert=1, context=1, tensor=2)
    mesh = make_mesh(mesh_config(**sizes), jax.devices())
    numbers = {axis: np.moveaxis(mesh.device_ids, mesh.axis_names.index(axis), 0) for axis in sizes}
    apart = {axis: (ids[1] - ids[0]).ravel() for axis, ids in numbers.items() if len(ids) > 1}
    assert {axis: set(found.tolist()) for axis, found in apart.items()} == {"pipeline": {4}, "data": {2}, "tensor": {1}}
    abstract = abstract_mesh(mesh_config(**sizes), AbstractDevices("gpu", 8))
    assert abstract.axis_names == mesh.axis_names and dict(abstract.shape) == dict(mesh.shape)
