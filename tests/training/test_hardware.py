"""Peak rates by JAX's name of a device, and memory."""

import functools
import itertools
import math

import jax
import pytest

from gptjax.training import hardware
from gptjax.training.hardware import (
    PEAK_TFLOPS,
    Peak,
    measure_matmul_flops,
    memory,
    peak_flops,
    peak_flops_per_device,
)


@pytest.mark.parametrize(
    "kind, bfloat16",
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA B300 SXM6 AC", 2250),
        ("NVIDIA GB300", 2500),
        ("NVIDIA H800", 989),
        ("NVIDIA H800 PCIe", 756),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("AMD Instinct MI300X", 1307.4),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 3090", 71),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v6e", 918),
        ("TPU v6 lite", 918),
        ("TPU7x", 1153.5),
    ],
)
def test_dense_bfloat16_peak(kind, bfloat16):
    assert peak_flops_per_device(kind, "bfloat16") == bfloat16 * 1e12


@pytest.mark.parametrize(
    "kind, dtype",
    [
        *((kind, "bfloat16") for kind in ("NVIDIA Q9000", "Tesla V100-SXM2-16GB", "TPU8i", "AMD Instinct MI355X")),
        *((kind, "float32") for kind in ("TPU v4", "cpu", "AMD Instinct MI300X")),
        # slower than the card of that name
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "float32"),
        ("GRID A100D-40C", "bfloat16"),
        ("NVIDIA A40-24Q", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "bfloat16"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "bfloat16"),
        ("NVIDIA GeForce RTX 5090 D", "bfloat16"),
    ],
)
def test_the_peak_of_an_unknown_device_is_none(kind, dtype):
    assert peak_flops_per_device(kind, dtype) is None


def test_float32_has_its_own_column():
    assert peak_flops_per_device("NVIDIA H200", "float32") == 495e12
    assert all(float32 is None or bfloat16 is None or float32 < bfloat16 for _, bfloat16, float32 in PEAK_TFLOPS)


class FakeDevice:
    platform, process_index = "gpu", 0

    def __init__(self, kind):
        self.device_kind = kind


def test_peak_of_many_devices_names_its_source():
    peak = peak_flops([FakeDevice("NVIDIA H200")] * 8, "bfloat16")
    assert peak.flops == 8 * 989e12
    assert peak.label == "of 8 × 989 TFLOP/s (NVIDIA H200, dense bfloat16)"
    unknown = peak_flops([FakeDevice("NVIDIA Q9000")], "bfloat16")
    assert unknown.flops is None and unknown.label == "n/a: no bfloat16 peak known for NVIDIA Q9000"


def test_cpu_peak_is_measured_once_for_all_devices_of_a_process(monkeypatch):
    flops, spread = measure_matmul_flops(seconds=0.01)
    assert 0 < flops < math.inf and 0 <= spread < 1
    measured = iter([(5e9, 0.02), (6e9, 0.02)])
    monkeypatch.setattr(hardware, "measure_matmul_flops", lambda: next(measured))
    monkeypatch.setattr(hardware, "measured_peak", functools.cache(hardware.measured_peak.__wrapped__))
    assert len(jax.devices()) == 8  # virtual ones, on one set of cores
    assert peak_flops(jax.devices(), "float32") == Peak(5e9, "of measured matmul peak, 5 GFLOP/s ± 2%")
    assert peak_flops(jax.devices()[:1], "float32").flops == 5e9, "a second run of the process has the same peak"
    monkeypatch.setattr(hardware, "measured_peak", lambda: (5e9, 0.4))
    unsure = "of measured matmul peak, at least 5 GFLOP/s (unsure: the CPU is busy)"
    assert peak_flops(jax.devices(), "float32") == Peak(5e9, unsure)


def test_a_measured_peak_is_that_of_uninterrupted_products(monkeypatch):
    """With a simulated clock, a product of size 512 takes 1 ms and one of size 1024 takes 8 ms, or three times as long
    if interrupted."""
    now, interrupted = [0.0], itertools.cycle([True, True, False])

    class Product:
        def __init__(self, size):
            self.size = size

        def block_until_ready(self):
            slow = next(interrupted) or self.size == 1024  # long ones are always interrupted
            now[0] += 1e-3 * (self.size / 512) ** 3 * (3 if slow else 1)

    monkeypatch.setattr(hardware.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(hardware.jax, "jit", lambda function: lambda matrix: Product(len(matrix)))
    flops, spread = measure_matmul_flops()
    assert math.isclose(flops, 2 * 512**3 / 1e-3) and spread < 1e-6
    interrupted = itertools.chain([True, True], [False], itertools.repeat(True))
    flops, spread = measure_matmul_flops()
    assert math.isclose(flops, 2 * 512**3 / 1e-3) and spread > hardware.UNSURE, "a single fast product is not reliable"


def test_memory_of_the_process_if_devices_do_not_report_it():
    held = memory()
    assert held.kind == "host" and held.limit is None
    assert 50e6 < held.in_use <= 1.05 * held.peak < 1e12


def test_memory_of_the_fullest_device(monkeypatch):
    class Device:
        def __init__(self, in_use, peak):
            self.stats = {"bytes_in_use": in_use, "peak_bytes_in_use": peak, "bytes_limit": 100}

        def memory_stats(self):
            return self.stats

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(10, 60), Device(30, 50)])
    held = memory()
    assert (held.in_use, held.peak, held.limit, held.kind) == (30, 60, 100, "device")
