"""Compares causal attention on a CPU with PyTorch's: python experiments/throughput/attention.py

Forward and backward pass of `model/attention.py` with the backend xla, and of `scaled_dot_product_attention`, in
float32. Each side is a separate process, and they take turns (sides.py). Needs PyTorch and gptjax in one environment,
or --torch_python=INTERPRETER. Prints processor seconds and wall-clock seconds: medians of the turns, and the ratios of
neighbouring turns with their extremes in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import Side, processor_seconds

#          rows, tokens, heads, width of a head
SHAPES = ((8, 256, 6, 64), (4, 1024, 12, 64), (2, 2048, 8, 64), (2, 4096, 4, 32), (1, 8192, 4, 32))
CALLS = 3  # of a turn
KINDS = {"processor_seconds": "processor seconds", "seconds": "wall-clock seconds"}


def gptjax_side(block: int) -> Callable[[tuple[int, ...]], Callable[[], object]]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from gptjax.command_line.kept_memory import keep_freed_memory
    from gptjax.model.attention import attention
    from gptjax.model.resolve import attention_block
    from gptjax.parallel.compilation import training_options

    keep_freed_memory()
    mesh = jax.make_mesh((1,), ("data",))

    def prepared(shape: tuple[int, ...]) -> Callable[[], object]:
        arrays = [jnp.asarray(np.random.default_rng(i).normal(size=shape), jnp.float32) for i in range(4)]

        rows = block or attention_block("cpu", shape[1])

        def gradients(q: jax.Array, k: jax.Array, v: jax.Array, cotangent: jax.Array) -> object:
            out, pull = jax.vjp(lambda *qkv: attention(*qkv, backend="xla", block=rows), q, k, v)
            return out, pull(cotangent)

        compiled = jax.jit(gradients, compiler_options=training_options(mesh, "float32"))
        return lambda: jax.block_until_ready(compiled(*arrays))

    return prepared


def torch_side(block: int) -> Callable[[tuple[int, ...]], Callable[[], object]]:
    import torch

    def prepared(shape: tuple[int, ...]) -> Callable[[], object]:
        rows, tokens, heads, width = shape
        q, k, v, cotangent = (torch.randn(rows, heads, tokens, width) for _ in range(4))
        qkv = [x.requires_grad_(True) for x in (q, k, v)]

        def once() -> object:
            for x in qkv:
                x.grad = None
            torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=True).backward(cotangent)

        return once

    return prepared


def serve(side: str, block: int) -> None:
    """Answers the number of a shape with the time of CALLS calls, after two to warm up."""
    prepared = {"gptjax": gptjax_side, "torch": torch_side}[side](block)
    ready: dict[int, Callable[[], object]] = {}
    for line in sys.stdin:
        number = int(line)
        if number not in ready:
            ready[number] = prepared(SHAPES[number])
            ready[number](), ready[number]()
        clock, used = time.perf_counter(), processor_seconds()
        for _ in range(CALLS):
            ready[number]()
        answer = {"seconds": time.perf_counter() - clock, "processor_seconds": processor_seconds() - used}
        print(json.dumps({kind: value / CALLS for kind, value in answer.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--block", type=int, default=0, help="model.attention_block, of gptjax alone")
    parser.add_argument("--torch_python", default=sys.executable, help="the interpreter that has PyTorch")
    parser.add_argument("--side", choices=("gptjax", "torch"), help="be one of the sides (internal)")
    options = parser.parse_args()
    if options.side:
        return serve(options.side, options.block)
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # otherwise PyTorch's threads spin
    interpreters = {"gptjax": sys.executable, "torch": options.torch_python}
    sides = {
        name: Side((interpreter, __file__, f"--side={name}", f"--block={options.block}"), environment)
        for name, interpreter in interpreters.items()
    }
    print("| rows x tokens x heads x width | | gptjax | PyTorch | gptjax / PyTorch |\n|---|---|---|---|---|")
    for number, shape in enumerate(SHAPES):
        turns = [{name: side.ask(number) for name, side in sides.items()} for _ in range(options.turns)]
        for kind, words in KINDS.items():
            ours, theirs = ([turn[name][kind] for turn in turns] for name in sides)
            ratios = [a / b for a, b in zip(ours, theirs)]
            medians = f"{statistics.median(ours):.3f} | {statistics.median(theirs):.3f}"
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {' x '.join(map(str, shape))} | {words} | {medians} | {spread} |", flush=True)
    for side in sides.values():
        side.close()


if __name__ == "__main__":
    main()
