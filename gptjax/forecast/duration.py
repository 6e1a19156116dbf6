"""The time of a step: a roofline for each kernel, and the time for communication.

A kernel takes the time of its products or of its bytes, whichever is longer, at the fraction of the device's peak rates
that such kernels reach, and a few microseconds to start. On processors it takes both, since a core that waits for
memory does not multiply meanwhile (experiments/plan/small_products.py). Communication takes its bytes divided by the
rate of the slower of a node's own links and the network, and a latency per hop. How much communication overlaps with
computation is unknown before the program runs: none in the slow case, all in the fast case, half in the likely case.

The fractions are data with their sources, in three cases: slow, likely, fast.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gptjax.forecast.hardware import Hardware
from gptjax.forecast.kernels import Kernel
from gptjax.forecast.step import Needs
from gptjax.parallel.traffic import Collective

CASES = ("slow", "likely", "fast")
FLOAT8 = (
    1.5  # rate of 8-bit products, rounding included, per rate of bfloat16 ones: whole steps gain 1.17 to 1.39 times
)

CACHE = 10  # how many times as fast a processor's cache is as its memory


class Cases(NamedTuple):
    """A number in the three cases."""

    slow: float
    likely: float
    fast: float


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """The fractions of a device's peak rates that kernels reach.

    Attributes:
      products, attention: fraction of the peak of matrix products.
      memory, links: fraction of the rate of the memory, and of links and network.
      hidden: fraction of the communication that overlaps with computation.
      start: seconds to start a kernel.
      in_turn: whether a kernel's bytes are moved before or after its products, and not during them.
      cached: kernels that move at most so many bytes find them in the processor's cache, which is CACHE times as fast.
      hop: seconds for each further device or node of a ring.
      sources: the source of each fraction.
    """

    products: Cases
    attention: Cases
    memory: Cases
    links: Cases
    hidden: Cases
    start: Cases
    hop: Cases
    sources: Mapping[str, str]
    cached: float = 0.0
    in_turn: bool = False


_HIDDEN, _HOP = Cases(0.0, 0.5, 1.0), Cases(4e-6, 2e-6, 1e-6)
EFFICIENCIES: Mapping[str, Efficiency] = {
    "gpu": Efficiency(
        products=Cases(0.55, 0.65, 0.80),
        attention=Cases(0.30, 0.45, 0.65),
        memory=Cases(0.70, 0.80, 0.92),
        links=Cases(0.60, 0.80, 0.90),
        hidden=_HIDDEN,
        start=Cases(4e-6, 2e-6, 1e-6),
        hop=_HOP,
        sources={
            "products": "square bfloat16 products reach 788 of 989 TFLOP/s on an H200, XLA's output layers 600 to 700",
            "attention": "cuDNN's causal attention reaches 300 to 650 of 989 TFLOP/s on an H100",
            "memory": "copies reach 0.9 of the datasheet's rate, element-wise kernels less",
            "links": "rings of large messages reach 0.8 of NVLink's and InfiniBand's rates",
        },
    ),
    "tpu": Efficiency(
        products=Cases(0.50, 0.65, 0.80),
        attention=Cases(0.25, 0.40, 0.55),
        memory=Cases(0.70, 0.80, 0.90),
        links=Cases(0.60, 0.80, 0.90),
        hidden=_HIDDEN,
        start=Cases(2e-6, 1e-6, 1e-6),
        hop=_HOP,
        sources={"products": "published model FLOPs of MaxText on v5p and v6e are 55 to 68 % of the peak"},
    ),
    "cpu": Efficiency(
        products=Cases(0.55, 0.78, 0.95),
        attention=Cases(0.55, 0.78, 0.95),
        memory=Cases(0.50, 0.80, 0.95),
        links=Cases(0.30, 0.50, 0.80),
        hidden=Cases(0.0, 0.0, 0.0),
        start=Cases(1e-5, 2e-6, 1e-6),
        hop=Cases(1e-4, 5e-5, 2e-5),
        cached=8e6,
        in_turn=True,
        sources={
            "products": "fitted to experiments/throughput: 51, 2,132 and 7,560 ms per step of three GPT-2 shapes in "
            "float32 where the fastest product reaches 213 GFLOP/s",
            "memory, start, cached": "fitted to the processor seconds of 13 configs in experiments/plan",
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step and of its parts, each in the three cases.

    Attributes:
      products: kernels that multiply matrices, including attention.
      other: kernels that only move data.
      sending: all communication, hidden or not.
      step: the whole step.
    """

    products: Cases
    other: Cases
    sending: Cases
    step: Cases

    def times(self, factor: float) -> StepTime:
        """All times multiplied by a factor."""
        parts = {name: Cases(*(factor * each for each in cases)) for name, cases in vars(self).items()}
        return StepTime(**parts)


def step_time(needs: Needs, hardware: Hardware, peak: float) -> StepTime:
    """The time of a step on devices like `hardware`.

    Args:
      peak: FLOP/s of matrix products of one device in the compute dtype.
    """
    reached = EFFICIENCIES[hardware.platform]
    found: dict[str, list[float]] = {field.name: [] for field in dataclasses.fields(StepTime)}
    for case in range(len(CASES)):
        products, other = (
            sum(each.times * _kernel(each, reached, case, hardware, peak) for each in kernels)
            for kernels in _divided(needs.kernels)
        )
        sending = sum(
            each.times * send_seconds(each, hardware, reached.links[case], reached.hop[case])
            for each in needs.collectives
        )
        hidden = min(reached.hidden[case] * sending, products + other)
        parts = {"products": products, "other": other, "sending": sending}
        for name, seconds in (parts | {"step": products + other + sending - hidden}).items():
            found[name].append(seconds)
    return StepTime(**{name: Cases(*seconds) for name, seconds in found.items()})


def _divided(kernels: Iterable[Kernel]) -> tuple[list[Kernel], list[Kernel]]:
    multiply = [kernel for kernel in kernels if kernel.flops]
    return multiply, [kernel for kernel in kernels if not kernel.flops]


def _kernel(kernel: Kernel, reached: Efficiency, case: int, hardware: Hardware, peak: float) -> float:
    share, busy = (reached.attention if kernel.kind == "attention" else reached.products)[case], _busy(kernel, hardware)
    rate = peak * share * busy * (FLOAT8 if kernel.float8 else 1.0)
    rate_of_memory = hardware.bandwidth * reached.memory[case] * (CACHE * busy if kernel.bytes <= reached.cached else 1)
    multiplied, moved = kernel.flops / rate, kernel.bytes / rate_of_memory
    return (multiplied + moved if reached.in_turn else max(multiplied, moved)) + reached.start[case]


def _busy(kernel: Kernel, hardware: Hardware) -> float:
    """The share of a processor's cores that a kernel keeps busy, on average until its last part is done."""
    if not (kernel.parts and hardware.cores):
        return 1.0
    return kernel.parts / (hardware.cores * math.ceil(kernel.parts / hardware.cores))


def send_seconds(collective: Collective, hardware: Hardware, share: float, hop: float) -> float:
    """The time of one collective, by the slower of its two kinds of links.

    Devices with consecutive numbers share a node. A group with k devices in each node uses k network cards at once. A
    sum over nodes is a tree; everything else is a ring.
    """
    nodes, size = collective.nodes(hardware.per_node), len(collective.group)
    sent, link, network = collective.bytes_sent(), hardware.link * share, hardware.network * share
    if nodes == 1:
        return sent / link
    if collective.kind == "collective-permute":
        return sent / network + hop
    between = sent * (nodes - 1) / nodes * size / (size - 1)
    levels = nodes.bit_length() if collective.kind == "all-reduce" else nodes - 1
    return max(sent / link, between / (size / nodes) / network) + hop * levels
