"""Multiplies one row by the matrices of some layers, in several forms: python experiments/throughput/one_row.py

The products of a decoder layer of SmolLM2-135M's shape, with its norms and activations between them but without
attention, in float32. The matrices exceed the processor's caches, so that every weight comes from memory. The forms
take turns; medians (extremes) of milliseconds for all layers, by the clock and of processor time.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import processor_seconds

flags.DEFINE_integer("layers", 12, "Layers: 3.5 million weights each.")
flags.DEFINE_integer("repeats", 9, "Turns per form.")
FLAGS = flags.FLAGS

WIDTH, KEYS, FEEDFORWARD = 576, 192, 1_536
SHAPES = {"query": (WIDTH, WIDTH), "key": (WIDTH, KEYS), "value": (WIDTH, KEYS), "output": (WIDTH, WIDTH)}
SHAPES |= {"gate": (WIDTH, FEEDFORWARD), "up": (WIDTH, FEEDFORWARD), "down": (FEEDFORWARD, WIDTH)}
PASSES = 8  # over all layers, in one program


def inputs_first(x_1I: jax.Array, weight_IO: jax.Array) -> jax.Array:
    return x_1I @ weight_IO


def outputs_first(x_1I: jax.Array, weight_OI: jax.Array) -> jax.Array:
    """XLA merges the transposition into a loop over outputs, which all cores share."""
    return (x_1I[0] @ weight_OI.T)[None]


def merged(x: jax.Array, is_true: jax.Array) -> jax.Array:
    del is_true
    return x


def computed_before(x: jax.Array, is_true: jax.Array) -> jax.Array:
    """x, which XLA does not merge into the loops that read it: nothing is moved out of a branch."""
    return jax.lax.cond(is_true, lambda x: x, lambda x: 0 * x, x)


def divided(x: jax.Array, is_true: jax.Array) -> jax.Array:
    """x, divided by ones that XLA does not know: a division counts as too expensive to be repeated in a loop."""
    del is_true
    return x / jnp.where(x == x, 1.0, 2.0)


FORMS: dict[str, tuple[Callable, Callable, bool]] = {  # the product, what happens to its row, whether it is transposed
    "[inputs, outputs]": (inputs_first, merged, False),
    "[outputs, inputs]": (outputs_first, merged, True),
    "[outputs, inputs], row in a branch": (outputs_first, computed_before, True),
    "[outputs, inputs], row divided by one": (outputs_first, divided, True),
}


def norm(x_1D: jax.Array) -> jax.Array:
    return x_1D * jax.lax.rsqrt(jnp.mean(x_1D * x_1D, axis=-1, keepdims=True) + 1e-6) * 1.01


def through_layers(form: str, x_1D: jax.Array, layers: list[dict[str, jax.Array]], is_true: jax.Array) -> jax.Array:
    product, prepared, _ = FORMS[form]
    for weights in layers:
        h_1D = prepared(norm(x_1D), is_true)
        query, key, value = (product(h_1D, weights[name]) for name in ("query", "key", "value"))
        mixed = query * jnp.tile(jax.nn.sigmoid(key) * value, (1, WIDTH // KEYS))
        x_1D = x_1D + product(prepared(mixed, is_true), weights["output"])
        h_1D = prepared(norm(x_1D), is_true)
        hidden = jax.nn.silu(product(h_1D, weights["gate"])) * product(h_1D, weights["up"])
        x_1D = x_1D + product(prepared(hidden, is_true), weights["down"])
    return norm(x_1D)


def compiled(form: str, x_1D: jax.Array, layers: list[dict[str, jax.Array]]) -> Callable:
    def passes(x_1D: jax.Array, layers: list[dict[str, jax.Array]], is_true: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, PASSES, lambda _, x_1D: through_layers(form, x_1D, layers, is_true), x_1D)

    return jax.jit(passes).lower(x_1D, layers, True).compile()


def summary(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main(argv: list[str]) -> None:
    del argv
    keys = jax.random.split(jax.random.key(0), (FLAGS.layers, len(SHAPES)))
    layers = [
        {name: jax.random.normal(key, shape) / shape[0] ** 0.5 for key, (name, shape) in zip(of_layer, SHAPES.items())}
        for of_layer in keys
    ]
    x_1D = jax.random.normal(jax.random.key(1), (1, WIDTH))
    programs, given, results = {}, {}, {}
    for form, (_, _, is_transposed) in FORMS.items():
        given[form] = jax.tree.map(lambda weight: jnp.array(weight.T), layers) if is_transposed else layers
        programs[form] = compiled(form, x_1D, given[form])
        results[form] = programs[form](x_1D, given[form], True)
        difference = float(jnp.max(jnp.abs(results[form] - results["[inputs, outputs]"])))
        if not difference < 0.1:  # sums in another order, through 96 layers
            raise RuntimeError(f"{form}: its result differs by {difference}")
    clock: dict[str, list[float]] = {form: [] for form in FORMS}
    processor: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(FLAGS.repeats):
        for form, program in programs.items():
            began, used = time.perf_counter(), processor_seconds()
            jax.block_until_ready(program(x_1D, given[form], True))
            clock[form].append(1e3 * (time.perf_counter() - began) / PASSES)
            processor[form].append(1e3 * (processor_seconds() - used) / PASSES)
    print(f"jax {jax.__version__}, {FLAGS.layers} layers, {FLAGS.repeats} turns\n")
    print("| matrices | ms | processor ms |\n|---|---|---|")
    for form in FORMS:
        print(f"| {form} | {summary(clock[form])} | {summary(processor[form])} |")


if __name__ == "__main__":
    app.run(main)
