"""Measures three ways in which a CPU scores continuations faster, each beside the program without it.

python experiments/evaluation/processors.py [--layers=6] [--width=384] [--turns=15]

Without one of them at a time: one device for all cores in place of one for each; products merged in YNNPACK by XLA's
defaults in place of Eigen's alone; and the heads of attention together in place of one after the other. All sides score
the same full batches, four choices per context as in last_layer.py, and take turns in one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from unittest import mock

import jax
import numpy as np
from last_layer import choices, drawn_model

from gptjax.evaluation import loglikelihood
from gptjax.evaluation.loglikelihood import LogLikelihoods, mesh_of
from gptjax.inference.devices import divide_cpu
from gptjax.model.decoder_family import DecoderFamily

GROUPS = 48  # contexts with their choices, three to a batch of one device


@dataclasses.dataclass(frozen=True)
class Together(DecoderFamily):
    """The same family; another type, so that its program is another one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    divide_cpu()
    family, params = drawn_model(arguments.layers, arguments.width)
    requests = choices(GROUPS)
    every = LogLikelihoods(family, params)

    def scored(scorer: LogLikelihoods) -> np.ndarray:
        return np.array([score.nats for _, score in sorted(scorer.score(requests), key=lambda each: each[0])])

    def with_defaults() -> np.ndarray:
        with mock.patch.object(loglikelihood, "forward_options", lambda mesh, dtype: None):
            return scored(every)

    one = LogLikelihoods(family, params, mesh_of(jax.local_devices()[:1]))
    together = LogLikelihoods(Together(family.config), params)
    with mock.patch.object(jax.lax, "platform_dependent", lambda *inputs, cpu, default: default(*inputs)):
        scored(together)  # its program is traced here
    sides = {
        "as it is": lambda: scored(every),
        "one device for all cores": lambda: scored(one),
        "XLA's default products": with_defaults,
        "heads together": lambda: scored(together),
    }
    compare(sides, arguments.turns, len(requests))


def compare(sides: dict[str, Callable[[], np.ndarray]], turns: int, count: int) -> None:
    """Prints a row per side: choices per second, cores in use, the median over turns of its time divided by that of the
    first side in the same turn, and how far their log-likelihoods are apart."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    used: dict[str, list[float]] = {name: [] for name in sides}
    nats = {name: run() for name, run in sides.items()}
    for _ in range(turns):
        for name, run in sides.items():
            began, before = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(time.perf_counter() - began)
            used[name].append((time.process_time() - before) / seconds[name][-1])
    first = next(iter(sides))
    print(
        f"| side | choices per second (slowest, fastest) | cores in use | '{first}' is faster by a factor of | largest "
        "difference in nats |"
    )
    for name, each in seconds.items():
        ratio = statistics.median(mine / its for mine, its in zip(each, seconds[first], strict=True))
        print(
            f"| {name} | {count / statistics.median(each):.1f} ({count / max(each):.1f}, {count / min(each):.1f}) | "
            f"{statistics.median(used[name]):.2f} | {ratio:.2f} | {np.abs(nats[name] - nats[first]).max():.1e} |"
        )
    print(f"jax {jax.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
