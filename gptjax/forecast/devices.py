"""The devices that a run is planned for: those of this machine, or of a topology for which its compiler works."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from gptjax.cluster.cores import available_cores
from gptjax.command_line.driver_messages import without_driver_messages
from gptjax.config import ConfigError
from gptjax.display.formatting import counted
from gptjax.forecast.hardware import BY_NAME, DEVICES, GB, Hardware, target_config
from gptjax.parallel.mesh import AbstractDevices
from gptjax.training.hardware import bytes_per_device, peak_flops_per_device, processor_name

WITHOUT_DRIVER = "JAX_SKIP_CUDA_CONSTRAINTS_CHECK"  # tells JAX's CUDA plug-in not to look for a GPU
INSTALL = "pip install --no-deps jax-cuda12-plugin=={0} jax-cuda12-pjrt=={0} nvidia-cudnn-cu12"
CPU_BANDWIDTH = 25 * GB  # bytes per second that a machine's processors read, if nothing else is known


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run is planned to train.

    Attributes:
      devices: the devices for which the step is compiled, or AbstractDevices without a compiler for them.
      why_not: why the step is not compiled; '' if it is.
    """

    hardware: Hardware
    count: int
    devices: Sequence[jax.Device] | AbstractDevices
    why_not: str = ""


def find_place(name: str, count: int | None) -> Place:
    """The place for a name in hardware.py. `count` None: one device, or all devices of this machine.

    Raises:
      ConfigError: this machine has fewer devices, or their kind is unknown.
    """
    if name == "this":
        return _here(count)
    jax.config.update("jax_platforms", "cpu")  # even on a machine with GPUs, since these may be training
    if name == "cpu":
        jax.config.update("jax_num_cpu_devices", count or 1)
        with without_driver_messages():
            devices = jax.devices()
        return Place(_processor(len(devices)), len(devices), devices)
    hardware, count = BY_NAME[name], count or 1
    abstract = AbstractDevices(hardware.platform, count, hardware.kind)
    if hardware.target is None:
        return Place(hardware, count, abstract, f"XLA does not compile for {hardware.kind} on this machine")
    os.environ.setdefault(WITHOUT_DRIVER, "1")
    try:
        with without_driver_messages():
            gpus = gpus_of(hardware, count)
    except (RuntimeError, NotImplementedError, ValueError, KeyError):
        why = f"the compiler for NVIDIA GPUs is not installed: {INSTALL.format(jax.__version__)}"
        return Place(hardware, count, abstract, why)
    return Place(hardware, count, gpus)


def gpus_of(hardware: Hardware, count: int) -> Sequence[jax.Device]:
    """Devices for which a step can be compiled, if the plug-in of JAX for CUDA is installed."""
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=target_config(hardware), topology=f"1x1x{count}"
    )
    return topology.devices


def described_place(name: str, count: int) -> Place:
    """Devices of a name of the table that are only described: a search compares them by formula."""
    hardware = BY_NAME[name]
    return Place(
        hardware, count, AbstractDevices(hardware.platform, count, hardware.kind), "nothing is compiled for it"
    )


def kind_of(hardware: Hardware) -> str:
    """The kind of device whose runs are comparable: for processors, their model and the number of usable cores."""
    if hardware.platform != "cpu":
        return hardware.kind
    return f"{processor_name()}, {counted(len(available_cores()), 'core')}"


def _here(count: int | None) -> Place:
    with without_driver_messages():
        devices = jax.devices()
    if count is not None and count != len(devices):
        raise ConfigError(f"--hardware={count}xthis: this machine has {counted(len(devices), 'device')}")
    if devices[0].platform == "cpu":
        return Place(_processor(len(devices)), len(devices), devices)
    kind = devices[0].device_kind
    if (hardware := _known(kind)) is not None:
        return Place(dataclasses.replace(hardware, kind=kind), len(devices), devices)
    raise ConfigError(f"--hardware=this: {kind!r} is in no table; name the nearest of {', '.join(BY_NAME)} instead")


def _known(kind: str) -> Hardware | None:
    """The row of the table for JAX's name of a kind, or for another name of the same GPU; None if there is none.

    'NVIDIA H100 PCIe' has the row of the H100. A part of a GPU, or a laptop's, is not the card in its name.
    """
    is_whole = peak_flops_per_device(kind, "bfloat16") is not None
    exact = [hardware for hardware in DEVICES if hardware.kind == kind]
    named = [hardware for hardware in DEVICES if hardware.platform == "gpu" and _model(hardware.kind) == _model(kind)]
    return next(iter(exact or (named if is_whole else [])), None)


def _model(kind: str) -> str | None:
    """The word of a GPU's name that has its number: '4090' of 'NVIDIA GeForce RTX 4090', 'H100' of 'NVIDIA H100 80GB
    HBM3'."""
    return next((word for word in kind.split() if any(map(str.isdecimal, word))), None)


def _processor(count: int) -> Hardware:
    """This machine's processors, divided into `count` devices."""
    memory = float(bytes_per_device() or 0)
    source = "this machine"
    bandwidth = CPU_BANDWIDTH / count
    each = max(len(available_cores()) // count, 1)
    return Hardware("cpu", "cpu", "cpu", memory, bandwidth, bandwidth, bandwidth, count, None, source, cores=each)
