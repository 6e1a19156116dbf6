"""The devices that generate a text together: each has some heads, feed-forward columns and vocabulary entries. For
scores, which need no cache, the cores of a CPU can be devices that read rows of their own."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Protocol

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from gptjax.cluster.cores import available_cores
from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.parallel.mesh import make_mesh
from gptjax.settings import MeshSettings

MOST_CORES = 8  # that are devices of their own: each has the arrays of its rows in memory


class Placed(Protocol):
    """Something whose parameters are on one device, or on those of a mesh, such as a Generator."""

    @property
    def params(self) -> Any: ...

    @property
    def mesh(self) -> Mesh | None: ...


def decoding_mesh(text: str, axis: str = "tensor") -> Mesh | None:
    """The mesh for `--mesh=tensor=2`, or for another axis; None for '', which is one device.

    A CPU is divided into the required number of devices if JAX has not started yet.

    Raises:
      ConfigError: the text has another form, or there are not enough devices.
    """
    if not text:
        return None
    found = re.fullmatch(rf"{axis}=([1-9]\d{{0,5}})", text)
    if not found:
        raise ConfigError(f"--mesh={text}: expected {axis}=N, where N is the number of devices that share the model")
    count = int(found[1])
    try:
        jax.config.update("jax_num_cpu_devices", max(count, jax.config.jax_num_cpu_devices))  # type: ignore[attr-defined]
    except RuntimeError:  # JAX has started
        pass
    if count > jax.local_device_count():
        raise ConfigError(f"--mesh={text}: this process has {counted(jax.local_device_count(), 'device')}")
    sizes: dict[str, Any] = {"data": 1, axis: count}
    return make_mesh(MeshSettings(**sizes), jax.local_devices()[:count])


def divide_cpu() -> None:
    """Makes each core of a CPU a device, at most MOST_CORES, so that each can read rows of its own. Call it before JAX
    starts; afterwards it does nothing.

    Cores that share the products of one program wait for each other more often (experiments/evaluation). A number of
    devices in XLA_FLAGS or JAX_NUM_CPU_DEVICES has priority.
    """
    is_chosen = jax.config.jax_num_cpu_devices > 0  # type: ignore[attr-defined]  # JAX defines its settings at run time
    if is_chosen or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", min(len(available_cores()), MOST_CORES))


def pinned(tree: Any) -> Any:
    """Inside a program, gives arrays of a cache [B, K, S, H] and of a row's state their one place on the mesh.

    Heads are divided if their number allows it, and everything else is on all devices. If the compiler chose, programs
    that hand these arrays to each other would be compiled for each choice.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree

    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _place(mesh, x)), tree)


def devices_of(generator: Placed) -> contextlib.AbstractContextManager:
    """The mesh of the generator's parameters, for all calls of programs."""
    return contextlib.nullcontext() if generator.mesh is None else jax.set_mesh(generator.mesh)


def committed(generator: Placed, tree: Any) -> Any:
    """The arrays, committed to the device of the generator's parameters, if it is only one (see `engine_programs`).

    Arrays that a program makes of nothing are not, while those that it makes of a checkpoint's parameters are.
    """
    return tree if generator.mesh is not None else jax.device_put(tree, _only_device(generator))


def placed_shapes(generator: Placed, tree: Any) -> Any:
    """Descriptions of arrays as the programs return them: pinned, or committed to the only device."""

    def placed(x: Any) -> jax.ShapeDtypeStruct:
        sharding: Sharding
        if generator.mesh is None:
            sharding = SingleDeviceSharding(_only_device(generator))
        else:
            sharding = NamedSharding(generator.mesh, _place(generator.mesh, x))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(placed, tree)


def _only_device(generator: Placed) -> jax.Device:
    (device,) = jax.tree.leaves(generator.params)[0].devices()
    return device


def _place(mesh: Any, x: Any) -> PartitionSpec:
    is_divided = x.ndim == 4 and x.shape[1] % mesh.shape["tensor"] == 0
    return PartitionSpec(None, "tensor") if is_divided else PartitionSpec()
