"""How long Newton–Schulz iterations take on processors, with each product in a kernel of its own and without.

  python experiments/plan/muon.py        # two minutes; prints the table of README.md

Both sides run in turns in one process, and processor seconds are counted, divided by the number of cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gptjax.command_line.kept_memory import keep_freed_memory
from gptjax.parallel.compilation import training_options
from gptjax.training.optimizers import muon

SHAPES = [(6, 384, 384), (4, 512, 512), (4, 640, 640), (2, 1024, 1024), (6, 384, 1536), (4, 512, 1280)]
TURNS = 3


def merged(x: jax.Array) -> jax.Array:
    """`orthogonalize` without kernels of their own for its products."""
    apart, muon._apart = muon._apart, lambda x: x
    try:
        return muon.orthogonalize(x)
    finally:
        muon._apart = apart


def seconds(run: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    before = os.times()
    jax.block_until_ready(run(x))
    after = os.times()
    return (after.user + after.system - before.user - before.system) / (os.cpu_count() or 1)


def main() -> None:
    keep_freed_memory()  # as gptjax train does
    options = training_options(jax.make_mesh((1,), ("data",)), "float32")
    print("| stack of matrices | merged, GFLOP/s | apart, GFLOP/s | apart / merged | largest difference |")
    print("|---" * 5 + "|")
    for shape in SHAPES:
        x = jax.random.normal(jax.random.key(0), shape)
        sides = [jax.jit(side).lower(x).compile(options) for side in (merged, muon.orthogonalize)]
        difference = jnp.max(jnp.abs(sides[0](x) - sides[1](x)))
        times = [min(of) for of in zip(*([seconds(side, x) for side in sides] for _ in range(TURNS)), strict=True)]
        stack, short, long = shape
        flops = muon.ROUNDS * stack * 2 * (2 * short * short * long + short**3)
        rates = [flops / time / 1e9 for time in times]
        text = " × ".join(map(str, shape))
        print(
            f"| {text} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.1f} | {difference:.1g} |", flush=True
        )


if __name__ == "__main__":
    main()
