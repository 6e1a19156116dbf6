"""Do processors read and write while they multiply? python experiments/plan/small_products.py

The products of a layer's matrices and of attention's blocks, in turns with a large product, which sets the rate. About
a minute. Times are processor seconds divided by the number of cores.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

sys.path.append(str(Path(__file__).parents[1]))
from sides import processor_seconds

from gptjax.cluster.cores import available_cores
from gptjax.command_line.kept_memory import keep_freed_memory
from gptjax.forecast.devices import CPU_BANDWIDTH
from gptjax.forecast.duration import CACHE, EFFICIENCIES
from gptjax.forecast.kernels import Kernel, kernels_of
from gptjax.forecast.program import parse_program
from gptjax.parallel.compilation import training_options

TURNS, SECONDS = 5, 0.25  # of each product
LARGE = ("MI,IO->MO", (4096, 1536), (1536, 384))
PRODUCTS = (
    ("a layer's", "MI,IO->MO", (16_384, 192), (192, 192)),
    ("a layer's", "MI,IO->MO", (16_384, 192), (192, 768)),
    ("a layer's", "MI,IO->MO", (16_384, 768), (768, 192)),
    ("a layer's", "MI,IO->MO", (16_384, 384), (384, 384)),
    *(("scores of 64 queries", "BTH,BSH->BTS", (48, 64, 64), (48, keys, 64)) for keys in (256, 512, 1024)),
    *(("values of 64 queries", "BTS,BSH->BTH", (48, 64, keys), (48, keys, 64)) for keys in (256, 512, 1024)),
)


class Side(NamedTuple):
    kernel: Kernel
    compiled: jax.stages.Compiled
    operands: list[jax.Array]

    def seconds(self) -> float:
        """Processor seconds per core of one product."""
        count, before, began = 0, processor_seconds(), time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            jax.block_until_ready(self.compiled(*self.operands))
            count += 1
        return (processor_seconds() - before) / len(available_cores()) / count


def side(axes: str, *shapes: tuple[int, ...]) -> Side:
    operands = [jax.random.normal(jax.random.key(number), shape) for number, shape in enumerate(shapes)]
    options = training_options(jax.make_mesh((1,), ("data",)), "float32")
    compiled = jax.jit(lambda a, b: jnp.einsum(axes, a, b)).lower(*operands).compile(options)
    (kernel,) = [each for each in kernels_of(parse_program(compiled.as_text() or ""), True) if each.flops]
    jax.block_until_ready(compiled(*operands))
    return Side(kernel, compiled, operands)


def moved(kernel: Kernel) -> float:
    """Seconds for a kernel's bytes, as a plan has them."""
    shares = EFFICIENCIES["cpu"]
    return kernel.bytes / CPU_BANDWIDTH / shares.memory.likely / (CACHE if kernel.bytes <= shares.cached else 1)


def rows() -> Iterator[tuple[str, Any, float, float, float]]:
    """(name, shapes, milliseconds, those of its FLOPs at the rate of the large product, those of its bytes)"""
    large, every = side(*LARGE), [side(*each[1:]) for each in PRODUCTS]
    turns = [[each.seconds() for each in (large, *every)] for _ in range(TURNS)]
    large_seconds, *seconds = map(statistics.median, zip(*turns))
    rate = large.kernel.flops / (large_seconds - moved(large.kernel))
    print(f"the large product: {rate / 1e9:.0f} GFLOP/s\n")
    for (name, _, *shapes), each, measured in zip(PRODUCTS, every, seconds):
        yield name, shapes, 1e3 * measured, 1e3 * each.kernel.flops / rate, 1e3 * moved(each.kernel)


def main() -> None:
    keep_freed_memory()  # as gptjax train does, before a library starts a thread
    print("| product | shapes | measured, ms | FLOPs, ms | bytes, ms | longer / measured | both / measured |")
    print("|---" * 7 + "|")
    for name, shapes, measured, multiplied, bytes_moved in rows():
        text = " · ".join(" × ".join(f"{size:,}" for size in shape) for shape in shapes)
        print(
            f"| {name} | {text} | {measured:.2f} | {multiplied:.2f} | {bytes_moved:.2f} | "
            f"{max(multiplied, bytes_moved) / measured:.2f} | {(multiplied + bytes_moved) / measured:.2f} |"
        )


if __name__ == "__main__":
    main()
