"""Measures how long it takes to choose the next token from logits: python experiments/throughput/sampling.py

The project's `sample`, and a sort of the same logits, which finds top-k's and top-p's last tokens, too. Each program
repeats its work; the programs take turns. Medians (extremes) of milliseconds per repetition, by the clock and of
processor time.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import processor_seconds

from gptjax.inference.sampling import make_sampling, sample

flags.DEFINE_list("rows", ["1", "8"], "Rows of logits.")
flags.DEFINE_list("vocabularies", ["4096", "49152"], "Sizes of the vocabulary.")
flags.DEFINE_integer("repeats", 7, "Turns per program.")
FLAGS = flags.FLAGS

TIMES = 20  # repetitions in one program
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": dict(temperature=0.0),
    "temperature": dict(temperature=0.8),
    "temperature, top-k": dict(temperature=0.8, top_k=50),
    "temperature, top-p": dict(temperature=0.8, top_p=0.9),
}


def repeated(work: Callable[..., jax.Array], logits_BV: jax.Array, *given: Any) -> jax.Array:
    """The sum of what `work(logits, step, *given)` returns, of logits that depend on the sum so far."""

    def again(step: jax.Array, total: jax.Array) -> jax.Array:
        return total + jnp.sum(work(logits_BV + 1e-20 * total, step, *given))

    return jax.lax.fori_loop(0, TIMES, again, jnp.float32(0))


def drawn(logits_BV: jax.Array, step: jax.Array, seen_BV: jax.Array, sampling: Any) -> jax.Array:
    return sample(logits_BV, seen_BV, jnp.full(len(logits_BV), step), sampling)[1]


def sorted_logits(logits_BV: jax.Array, step: jax.Array) -> jax.Array:
    return jnp.sort(-logits_BV)[:, step]


def summary(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(argv: list[str]) -> None:
    del argv
    print(f"jax {jax.__version__}, {FLAGS.repeats} turns\n")
    print("| rows | vocabulary | | ms | processor ms |\n|---|---|---|---|---|")
    for B, V in [(int(rows), int(size)) for size in FLAGS.vocabularies for rows in FLAGS.rows]:
        logits_BV = 3 * jax.random.normal(jax.random.key(0), (B, V))
        work: dict[str, tuple] = {"a sort alone": (sorted_logits, logits_BV)}
        for name, settings in SETTINGS.items():
            sampling = make_sampling(list(range(B)), num_tokens=V, **settings)
            work[name] = (drawn, logits_BV, jnp.zeros((B, V), bool), sampling)
        programs = {name: jax.jit(functools.partial(repeated, one[0])) for name, one in work.items()}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
        for turn in range(FLAGS.repeats + 1):
            for name, (_, *given) in work.items():
                began, used = time.perf_counter(), processor_seconds()
                jax.block_until_ready(programs[name](*given))
                spent = time.perf_counter() - began, processor_seconds() - used
                if turn:  # the first compiles
                    times[name].append((1e3 * spent[0] / TIMES, 1e3 * spent[1] / TIMES))
        for name, spent in times.items():
            print(f"| {B} | {V:,} | {name} | {' | '.join(summary(list(one)) for one in zip(*spent))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
