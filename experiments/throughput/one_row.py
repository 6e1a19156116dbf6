"""Multiplies one row by matrices in both layouts: python experiments/throughput/one_row.py --shapes=576x1536,1536x576

A chain of products over as many matrices as exceed the processor's caches, so that every weight comes from memory. The
sides take turns; medians of billions of weights per second, by the clock and per second of processor time.
"""

from __future__ import annotations

import statistics
import time

import jax
import jax.numpy as jnp
from absl import app, flags

from gptjax.model.int8 import quantize
from gptjax.model.outputs_first import OutputsFirst
from gptjax.model.precision import project_float32

WEIGHTS = 50_000_000
flags.DEFINE_list("shapes", ["576x1536", "1536x576"], "Inputs x outputs.")
flags.DEFINE_integer("repeats", 9, "Turns.")
FLAGS = flags.FLAGS


@jax.jit
def chain(x_BTI, matrices):
    added = 0.0
    for matrix in matrices:  # each product waits for the one before
        added = jnp.mean(project_float32(x_BTI + added, matrix)) * 1e-6
    return added


def main(argv: list[str]) -> None:
    del argv
    print(f"jax {jax.__version__}\n")
    print("| shape | weights | layout | G weights/s | per processor second |\n|---|---|---|---|---|")
    for shape in FLAGS.shapes:
        inputs, outputs = map(int, shape.split("x"))
        keys = jax.random.split(jax.random.key(0), max(2, WEIGHTS // (inputs * outputs)))
        x_BTI, sides = jnp.ones((1, 1, inputs)), {}
        for weights in ("float32", "bfloat16", "int8"):
            made = [jax.random.normal(key, (inputs, outputs)) for key in keys]
            made = [quantize(each, (0,)) if weights == "int8" else each.astype(weights) for each in made]
            sides[weights, "inputs first"] = made
            sides[weights, "outputs first"] = [OutputsFirst(jax.tree.map(jnp.transpose, each)) for each in made]
        rates: dict[tuple[str, str], list[tuple[float, float]]] = {name: [] for name in sides}
        for turn in range(FLAGS.repeats + 1):
            for name, matrices in sides.items():
                began, used = time.perf_counter(), time.process_time()
                jax.block_until_ready(chain(x_BTI, matrices))
                seconds = time.perf_counter() - began, time.process_time() - used
                if turn:  # the first one compiles
                    count = len(keys) * inputs * outputs / 1e9
                    rates[name].append((count / seconds[0], count / seconds[1]))
        for (weights, layout), each in rates.items():
            clock, processor = (statistics.median(column) for column in zip(*each))
            print(f"| {shape} | {weights} | {layout} | {clock:.1f} | {processor:.1f} |", flush=True)


if __name__ == "__main__":
    app.run(main)
