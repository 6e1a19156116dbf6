"""Measures tokens per second of the loader alone: python experiments/loader/measure.py --data=data/stdlib

One process, no workers, batches as the trainer takes them, compared with plain NumPy slicing of the same memory map at
random places (as nanoGPT's loader does: the least that any loader has to do). The sides take turns; medians and
extremes.
"""

from __future__ import annotations

import os
import platform
import statistics
import time

import numpy as np
from absl import app, flags

from gptjax.config import default
from gptjax.data import open_dataset

DATA = flags.DEFINE_string("data", "data/stdlib", "A prepared folder.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Measurements per side.")
BATCH_SIZE = 32
SECONDS = 0.5


def loader_rate(windows: str, sequence_length: int) -> float:
    config = default().data
    config.update(path=DATA.value, windows=windows, sequence_length=sequence_length)
    data = open_dataset(config, "train", seed=0, batch_size=BATCH_SIZE)
    batches = data.batches(0, np.arange(BATCH_SIZE))
    next(batches)
    return rate(lambda: next(batches), BATCH_SIZE * sequence_length)


def slicing_rate(sequence_length: int) -> float:
    """The rate of copying random windows of the first shard one by one and stacking them; ids must fit into 16 bits."""
    tokens = np.memmap(os.path.join(DATA.value, "train-00000.bin"), dtype="<u2", mode="r")
    rng = np.random.default_rng(0)

    def batch():
        starts = rng.integers(0, len(tokens) - sequence_length - 1, BATCH_SIZE)
        x = np.stack([tokens[i : i + sequence_length].astype(np.int64) for i in starts])
        y = np.stack([tokens[i + 1 : i + 1 + sequence_length].astype(np.int64) for i in starts])
        return x, y

    return rate(batch, BATCH_SIZE * sequence_length)


def rate(make_batch, tokens: int) -> float:
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS:
        make_batch()
        count += 1
    return count * tokens / elapsed


def main(_) -> None:
    sides = {
        f"{side}, T = {length}": measure
        for length in (256, 1024)
        for side, measure in {
            "gptjax contiguous": lambda length=length: loader_rate("contiguous", length),
            "gptjax packed": lambda length=length: loader_rate("packed", length),
            "NumPy slices (nanoGPT's way)": lambda length=length: slicing_rate(length),
        }.items()
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS.value):
        for name, measure in sides.items():
            found[name].append(measure() / 1e6)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| loader | M tokens/s, median | min | max |\n|---|---|---|---|")
    for name, rates in found.items():
        print(f"| {name} | {statistics.median(rates):.1f} | {min(rates):.1f} | {max(rates):.1f} |")


if __name__ == "__main__":
    app.run(main)
