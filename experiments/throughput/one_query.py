"""Attention of one new token over the cache of a single row: python experiments/throughput/one_query.py

Each step of a loop writes a token's keys and values into the cache of each layer and attends to all slots, in the form
that the model uses for several rows, and in its form for one (`model/one_row.py`). The heads are SmolLM2-135M's, and
there are no matrices. Medians (extremes) of milliseconds per layer and step, by the clock and of processor time.
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

from gptjax.model.attention import cached_attention
from gptjax.model.cache import write

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import processor_seconds

flags.DEFINE_list("slots", ["256", "2048"], "Slots of the cache.")
flags.DEFINE_integer("repeats", 7, "Turns per form.")
FLAGS = flags.FLAGS

HEADS, KV_HEADS, HEAD_WIDTH, LAYERS, STEPS = 9, 3, 64, 4, 32


def as_for_several(q_BTNH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, positions_BT: jax.Array) -> jax.Array:
    q_BTKGH = q_BTNH.reshape(1, 1, KV_HEADS, -1, HEAD_WIDTH)
    logits_BKTGS = jnp.einsum("BTKGH,BKSH->BKTGS", q_BTKGH, k_BKSH) * HEAD_WIDTH**-0.5
    seen_S = jnp.arange(k_BKSH.shape[2]) <= positions_BT[0, 0]
    weights_BKTGS = jax.nn.softmax(jnp.where(seen_S, logits_BKTGS, -1e30), axis=-1)
    return jnp.swapaxes(jnp.einsum("BKTGS,BKSH->BKTGH", weights_BKTGS, v_BKSH), 1, 2).reshape(q_BTNH.shape)


def as_in_the_model(q_BTNH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, positions_BT: jax.Array) -> jax.Array:
    return cached_attention(q_BTNH, k_BKSH, v_BKSH, positions_BT=positions_BT)


FORMS: dict[str, Callable] = {"as for several rows": as_for_several, "as in the model": as_in_the_model}


def steps_of(attend: Callable, slots: int) -> Callable:
    def step(i: jax.Array, carry: tuple) -> tuple:
        x_BTNH, caches = carry
        lengths_B, new = slots - STEPS + i[None], []
        for keys, values in caches:
            k_BTKH = x_BTNH[:, :, :KV_HEADS]
            keys, values = write(keys, 1.01 * k_BTKH, lengths_B), write(values, 0.9 * k_BTKH, lengths_B)
            x_BTNH = x_BTNH + attend(0.99 * x_BTNH, keys, values, lengths_B[:, None])
            x_BTNH *= jax.lax.rsqrt(jnp.mean(x_BTNH * x_BTNH) + 1e-6)
            new.append((keys, values))
        return x_BTNH, new

    return jax.jit(lambda x_BTNH, caches: jax.lax.fori_loop(0, STEPS, step, (x_BTNH, caches)), donate_argnums=1)


def summary(seconds: list[float]) -> str:
    each = [1e3 * value / STEPS / LAYERS for value in seconds]
    return f"{statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})"


def main(argv: list[str]) -> None:
    del argv
    print(f"jax {jax.__version__}, {FLAGS.repeats} turns\n\n| slots | form | ms | processor ms |\n|---|---|---|---|")
    x_BTNH = jax.random.normal(jax.random.key(1), (1, 1, HEADS, HEAD_WIDTH))
    for slots in map(int, FLAGS.slots):
        shape = (1, KV_HEADS, slots, HEAD_WIDTH)
        keys = jax.random.split(jax.random.key(0), 2 * LAYERS)
        programs = {form: steps_of(attend, slots) for form, attend in FORMS.items()}
        clock: dict[str, list[float]] = {form: [] for form in FORMS}
        processor: dict[str, list[float]] = {form: [] for form in FORMS}
        for turn in range(1 + FLAGS.repeats):
            results = []
            for form, program in programs.items():
                made = [jax.random.normal(key, shape) for key in keys]
                caches = jax.block_until_ready(list(zip(made[::2], made[1::2])))
                began, used = time.perf_counter(), processor_seconds()
                results.append(jax.block_until_ready(program(x_BTNH, caches))[0])
                if turn:  # the first compiles
                    clock[form].append(time.perf_counter() - began)
                    processor[form].append(processor_seconds() - used)
            if not jnp.allclose(*results, atol=1e-3):
                raise RuntimeError("the two forms differ")
        for form in FORMS:
            print(f"| {slots:,} | {form} | {summary(clock[form])} | {summary(processor[form])} |", flush=True)


if __name__ == "__main__":
    app.run(main)
