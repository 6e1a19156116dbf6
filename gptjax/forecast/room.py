"""How much of a device's memory a training step may take.

JAX allocates a fraction of a GPU's memory, which an environment variable sets. On processors, the process itself needs
some of the machine's memory, and a save copies the state.
"""

from __future__ import annotations

import dataclasses
import os

import jax

from gptjax.forecast.devices import Place
from gptjax.forecast.memory import Memory, bytes_on_device
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import Plan

FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # the fraction of a GPU's memory that JAX allocates
DEFAULT_FRACTION, MOST_FRACTION = 0.75, 0.94  # JAX's default; the rest is for drivers and libraries
ROOM = {"gpu": 0.95, "tpu": 0.95, "cpu": 0.9}  # the fraction of what there is that an estimate may take and still fits
PROCESS = 2**29  # bytes of the host that a process needs beside its steps, to compile, evaluate and save


@dataclasses.dataclass(frozen=True)
class Fit:
    """Whether the step fits.

    Attributes:
      device: bytes of memory of a device; 0: unknown.
      available: the bytes that a step may take with the current settings.
      most: the most that it may take with any settings.
      beside: what takes the rest, as the beginning of a sentence.
    """

    device: int
    available: int
    most: int
    fits: bool
    beside: str


def fit_of(memory: Memory, made: Plan, place: Place) -> Fit:
    """Compares a step's memory with the device's."""
    device = int(place.hardware.memory)
    if place.hardware.platform == "gpu":
        available, most = int(memory_fraction() * device), int(MOST_FRACTION * device)
        return Fit(device, available, most, memory.total <= most, f"by {FRACTION}, JAX leaves")
    rest = beside_steps(made)
    available = max(device - rest, 0)
    beside = "the process itself and copies for saves take" if rest else ""
    return Fit(device, available, available, not device or memory.total <= available, beside)


def beside_steps(made: Plan) -> int:
    """The bytes of each device that training takes beside its steps: those of a host's memory, where a process computes
    on the host itself."""
    if made.platform != "cpu":
        return 0
    copied = bytes_on_device(made.abstract_state) if jax.process_count() == 1 else 0  # training/checkpoints/snapshot.py
    return PROCESS // (1 if isinstance(made.devices, AbstractDevices) else jax.local_device_count()) + copied


def memory_fraction() -> float:
    """The fraction of a GPU's memory that JAX allocates with the current settings."""
    try:
        fraction = float(os.environ.get(FRACTION, DEFAULT_FRACTION))
    except ValueError:
        return DEFAULT_FRACTION
    return fraction if fraction > 0 else DEFAULT_FRACTION
