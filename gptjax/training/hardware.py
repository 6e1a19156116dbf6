"""Peak rates and memory of devices, to which a run's speed and memory are compared."""

from __future__ import annotations

import dataclasses
import functools
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.cluster.cores import available_cores
from gptjax.training.host_memory import host_free, host_limit

# Dense matrix-product peaks in TFLOP/s per JAX device, no sparsity: (pattern on device_kind, bfloat16, float32). The
# first match counts, so narrower patterns come first. The float32 column is what XLA uses for float32 products by
# default, TensorFloat-32, from Ampere on. Sources: NVIDIA's datasheets of each product (the sparse figure halved; for
# GeForce and RTX cards the architecture's whitepaper, its rate with float32 accumulation), AMD's datasheets, and
# Google's TPU system architecture pages. None: the device has no such unit, the maker publishes no figure, or it is
# unknown which unit XLA uses.
PEAK_TFLOPS: tuple[tuple[str, float | None, float | None], ...] = (
    (r"H[18]00 PCIe", 756, 378),
    (r"H100 NVL|H200 NVL", 835, 418),
    (r"H100|H200|H800|GH200", 989, 495),
    (r"H20\b", 148, 74),
    (r"GB300", 2500, 1250),  # GB300 NVL72: 360 PFLOP/s sparse in 72 GPUs
    (r"B300", 2250, 1125),  # HGX B300: 36 PFLOP/s sparse in 8 GPUs
    (r"GB200", 2500, 1250),
    (r"B200", 2250, 1125),
    (r"A100|A800", 312, 156),
    (r"A10G", 70, 35),
    (r"A10\b", 125, 62.5),
    (r"A30\b", 165, 82),
    (r"A40\b", 149.7, 74.8),
    (r"RTX A6000", 154.8, 77.4),
    (r"RTX 6000 Ada", 364.2, 182.1),
    (r"RTX PRO 6000 Blackwell Workstation", 503.8, 251.9),
    (r"L40S", 362, 183),
    (r"L40\b", 181, 90.5),
    (r"L4\b", 121, 60),
    (r"V100.*PCI", None, 14),
    (r"V100", None, 15.7),
    (r"T4\b", None, 8.1),
    (r"RTX 5090\b(?! D)", 209.5, 104.8),
    (r"RTX 4090\b(?! D)", 165.2, 82.6),
    (r"RTX 3090 Ti", 80, 40),
    (r"RTX 3090", 71, 35.6),
    (r"MI300X", 1307.4, None),  # float32: 163.4, or 653.7 as TensorFloat-32
    (r"TPU v2", 22.5, None),  # a device is one core, half a chip
    (r"TPU v3", 61.5, None),  # a device is one core, half a chip
    (r"TPU v4 lite", 138, None),
    (r"TPU v4", 275, None),
    (r"TPU v5 lite|TPU v5e", 197, None),
    (r"TPU v5", 459, None),
    (r"TPU v6", 918, None),
    (r"TPU7x", 1153.5, None),  # a device is one of the two cores of a chip, which has 2,307
)
# Devices that are slower than the card in their name: slices of a GPU, shares of a virtualized GPU, laptop and
# low-power cards. No table lists their peaks.
NOT_THE_WHOLE = r"\bMIG\b|\bGRID\b|-\d+[ABCQ]\b|Laptop|Mobile|Max-Q"


UNSURE = 0.1  # if the fastest products differ by at least this much, a measured peak is only a lower bound


@dataclasses.dataclass(frozen=True)
class Peak:
    """The peak rate of a set of devices.

    Attributes:
      flops: FLOP/s of all devices together; None if unknown.
      label: where the figure comes from.
    """

    flops: float | None
    label: str


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes in use, maximum in use so far, and available; kind: 'device' (the fullest local device) or 'host' (the
    process)."""

    in_use: int
    peak: int
    limit: int | None
    kind: str


def peak_flops_per_device(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of one device for products of `dtype` ('bfloat16' or 'float32') according to the table; None if
    unknown."""
    if re.search(NOT_THE_WHOLE, device_kind):
        return None
    for pattern, bfloat16, float32 in PEAK_TFLOPS:
        if re.search(pattern, device_kind):
            tera = float32 if dtype == "float32" else bfloat16
            return None if tera is None else tera * 1e12
    return None


def peak_flops(devices: Sequence[jax.Device], dtype: str) -> Peak:
    """The peak of all `devices` together. No table lists CPUs, so their rate is measured and labelled as measured."""
    first = devices[0]
    if first.platform == "cpu":
        processes = len({device.process_index for device in devices})  # devices of one process share its cores
        measured, spread = measured_peak()
        measured *= processes
        sure = f"{measured / 1e9:.0f} GFLOP/s ± {100 * spread:.0f}%"
        if spread > UNSURE:
            sure = f"at least {measured / 1e9:.0f} GFLOP/s (unsure: the CPU is busy)"
        return Peak(measured, f"of measured matmul peak, {sure}")
    return peak_of(first.device_kind, len(devices), dtype)


def peak_of(device_kind: str, count: int, dtype: str) -> Peak:
    """The peak of `count` devices of a kind according to the table; kind '' means unknown."""
    if not device_kind:
        return Peak(None, "n/a: the devices are not known")
    each = peak_flops_per_device(device_kind, dtype)
    if each is None:
        return Peak(None, f"n/a: no {dtype} peak known for {device_kind}")
    times = f"{count} × " if count > 1 else ""
    return Peak(count * each, f"of {times}{each / 1e12:.0f} TFLOP/s ({device_kind}, dense {dtype})")


def described(devices: Sequence[jax.Device], peak: Peak) -> dict[str, Any]:
    """What a run's history records of the devices that it trains on, as JSON values. It names no host."""
    first = devices[0]
    return {
        "platform": first.platform,
        "kind": processor_name() if first.platform == "cpu" else first.device_kind,
        "devices": len(devices),
        "cores": len(available_cores()) if first.platform == "cpu" else None,
        "processes": len({device.process_index for device in devices}),
        "peak_flops": peak.flops,
        "peak": peak.label,
    }


def processor_name() -> str:
    """The model of this machine's processor."""
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


@functools.cache
def measured_peak() -> tuple[float, float]:
    """The result of `measure_matmul_flops`, measured once per process."""
    return measure_matmul_flops()


def measure_matmul_flops(seconds: float = 0.4, sizes: Sequence[int] = (512, 1024)) -> tuple[float, float]:
    """Measures float32 products [size, size]² on the default device, even if other programs keep it busy.

    If other programs compute, some short products still run without interruption, but long ones do not. If no other
    program computes, a short product may not use all cores. Two sizes are therefore measured, each for half of the
    time, and the fastest product counts.

    Returns:
      FLOP/s of the fastest product, and the fraction by which the third fastest of the same size was slower. If this is
      large, uninterrupted products are rare, and even the fastest may have been interrupted.
    """
    multiply = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
    matrices = {size: jnp.full((size, size), 1.0 / size, jnp.float32) for size in sizes}
    for matrix in matrices.values():
        multiply(matrix).block_until_ready()
    times: dict[int, list[float]] = {size: [] for size in sizes}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not all(times.values()):
        size = min(sizes, key=lambda size: sum(times[size]))
        start = time.perf_counter()
        multiply(matrices[size]).block_until_ready()
        times[size].append(time.perf_counter() - start)
    flops = {size: sorted((2 * size**3 / each for each in times[size]), reverse=True) for size in sizes}
    best = max(flops.values())
    return best[0], 1 - best[min(2, len(best) - 1)] / best[0]


def memory() -> Memory:
    """Memory of this process's fullest device, or of the process itself if the device does not report it (CPU)."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        fullest = max(stats, key=lambda s: s["bytes_in_use"])
        peak = max(s.get("peak_bytes_in_use", s["bytes_in_use"]) for s in stats)
        return Memory(fullest["bytes_in_use"], peak, fullest.get("bytes_limit"), "device")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Memory(_resident_bytes() or peak, peak, None, "host")


def bytes_per_device() -> int | None:
    """The memory of each local device; None if unknown. CPU devices share the memory that the process may use."""
    return _per_device("bytes_limit", host_limit)


def free_bytes_per_device() -> int | None:
    """The memory that can still be allocated on each local device; None if unknown."""
    if (limit := _per_device("bytes_limit", host_free)) is None:
        return None
    stats = [device.memory_stats() for device in jax.local_devices()]
    return limit - max(each["bytes_in_use"] for each in stats) if all(stats) else limit


def _per_device(name: str, of_host: Callable[[], int | None]) -> int | None:
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return min((each[name] for each in stats if name in each), default=None)
    if devices[0].platform != "cpu" or (whole := of_host()) is None:
        return None
    return whole // len(devices)


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux
        return None
