"""Measures saving and restoring a training state: GB/s, and for how long training stops.

  python experiments/throughput/checkpoints.py --sizes=demo,30m,124m --folder=/a/disk

The real trainer takes steps on synthetic tokens. A save is requested between two of them, by our `Checkpoints` and by
Orbax's own `CheckpointManager` in turn, and steps are timed until it is on disk. The stall is the time of the call; the
drag is the time until then that the steps took beyond their median, because the two share the machine. `torch.save` and
safetensors write and read the same bytes (if torch is installed), without training at the same time and synced to disk.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import app, flags, logging
from ml_collections import ConfigDict

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.planning import plan
from gptjax.training.checkpoints.manager import Checkpoints
from gptjax.training.trainer import Trainer

#        layers, width, heads, vocabulary, T, rows: steps of a third of a second or more on two cores
SIZES = {
    "demo": (4, 128, 2, 2048, 128, 16),
    "30m": (6, 512, 8, 16384, 128, 4),
    "124m": (12, 768, 12, 50257, 128, 1),
}
flags.DEFINE_list("sizes", list(SIZES), f"Which of {', '.join(SIZES)}.")
flags.DEFINE_list("sides", [], "Which of the sides; all by default.")
flags.DEFINE_integer("repeats", 5, "Saves per side.")
flags.DEFINE_string("folder", "checkpoints-measured", "Folder to write to; removed afterwards.")
FLAGS = flags.FLAGS
QUIET_STEPS = 5  # steps before each save; their median is the time of a step


class Loop:
    """The real training step, repeated on one batch."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.state = trainer.init()
        self._step = trainer.compile_train_step(trainer.abstract_batch())
        vocab_size = trainer.config.model.vocab_size
        generator = np.random.default_rng(0)

        def values(shape: jax.ShapeDtypeStruct) -> np.ndarray:
            return generator.integers(1, vocab_size, shape.shape).astype(shape.dtype)

        self._batch = {n: jax.device_put(values(s), s.sharding) for n, s in trainer.abstract_batch().items()}
        for _ in range(3):
            self.step()

    def step(self) -> float:
        started = time.perf_counter()
        self.state, metrics = self._step(self.state, self._batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - started

    def around(self, save: Callable[[], None], is_done: Callable[[], bool]) -> tuple[float, float, float]:
        """Returns (stall, drag, seconds until the save is on disk) of a save between two steps."""
        quiet = statistics.median(self.step() for _ in range(QUIET_STEPS))
        started = time.perf_counter()
        save()
        stall, late = time.perf_counter() - started, 0.0
        while not is_done():
            late += self.step() - quiet
        return stall, late, time.perf_counter() - started


def make_loop(size: str) -> Loop:
    layers, width, heads, vocab_size, length, rows = SIZES[size]
    config = default()
    config.model.update(num_layers=layers, width=width, num_heads=heads, vocab_size=vocab_size)
    config.data.sequence_length = length
    config.training.update(batch_size=rows, duration="10000 steps")
    return Loop(plan(config, DataFacts(vocab_size), jax.devices()).trainer)


def ours(loop: Loop, folder: Path) -> dict[str, list[float]]:
    config = ConfigDict(dict(keep_latest=2, keep_best=0, keep_every=""))
    found: list[tuple[float, float, float]] = []
    with Checkpoints(folder, config, int) as checkpoints:
        for number in range(FLAGS.repeats + 1):

            def save(number=number) -> None:
                checkpoints.save(number, loop.state, {})

            found.append(loop.around(save, (checkpoints.directory / str(number)).exists))
            checkpoints.wait()
        reads = [seconds(lambda: checkpoints.restore(loop.trainer.abstract_state)) for _ in range(FLAGS.repeats)]
    return summary(found, reads)


def orbax(loop: Loop, folder: Path) -> dict[str, list[float]]:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
    found: list[tuple[float, float, float]] = []
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        for number in range(FLAGS.repeats + 1):

            def save(number=number) -> None:
                manager.save(number, args=ocp.args.StandardSave(loop.state))

            found.append(loop.around(save, lambda: not manager.is_saving_in_progress()))
            manager.wait_until_finished()
        restore = ocp.args.StandardRestore(loop.trainer.abstract_state)
        reads = [seconds(lambda: manager.restore(FLAGS.repeats, args=restore)) for _ in range(FLAGS.repeats)]
    return summary(found, reads)


def summary(saves: list[tuple[float, float, float]], reads: list[float]) -> dict[str, list[float]]:
    """Groups the results; the first save, which sets everything up, is separate."""
    first, rest = saves[0], saves[1:]
    stalls, drags, totals = (list(column) for column in zip(*rest))
    return {"first": [first[0]], "stall": stalls, "drag": drags, "write": totals, "read": reads}


def torch_sides(loop: Loop, folder: Path) -> dict[str, Callable[[], dict[str, list[float]]]]:
    """Returns functions that measure torch.save and safetensors with the same arrays, if both are installed."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("safetensors") is None:
        print("torch, safetensors: not installed, rows left out", file=sys.stderr)
        return {}
    import safetensors.torch
    import torch

    def whole(arrays: dict) -> list:
        return [array.clone() for array in arrays.values()]  # copies, because a memory map has not been read yet

    def measure(name: str, write: Callable, read: Callable) -> dict[str, list[float]]:
        arrays = {str(i): torch.tensor(np.array(leaf)) for i, leaf in enumerate(jax.tree.leaves(loop.state))}
        folder.mkdir(exist_ok=True)
        path = folder / name

        def save() -> None:
            write(arrays, path)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())

        writes = [seconds(save) for _ in range(FLAGS.repeats + 1)][1:]
        return {"write": writes, "read": [seconds(lambda: whole(read(path))) for _ in range(FLAGS.repeats)]}

    sides = {
        "torch.save": (torch.save, torch.load),
        "safetensors": (safetensors.torch.save_file, safetensors.torch.load_file),
    }
    return {name: functools.partial(measure, name, *functions) for name, functions in sides.items()}


def seconds(work: Callable) -> float:
    started = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - started


def show(values: list[float] | None, scale: float = 1e3) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    spread = f" ({scale * low:.0f} to {scale * high:.0f})" if len(values) > 1 else ""
    return f"{scale * statistics.median(values):.0f}{spread}"


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    folder = Path(FLAGS.folder)
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("jax", "orbax-checkpoint"))
    device = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    print(f"{versions}; {device}; {FLAGS.repeats} saves, median (extremes)\n")
    print("| state | | first stall ms | stall ms | drag ms | on disk after ms | write GB/s | read GB/s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for size in FLAGS.sizes:
        loop = make_loop(size)
        bytes_held = sum(leaf.nbytes for leaf in jax.tree.leaves(loop.state))
        step = statistics.median(loop.step() for _ in range(QUIET_STEPS))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        measures = {
            "gptjax": lambda loop=loop: ours(loop, folder / "gptjax"),
            "orbax": lambda loop=loop: orbax(loop, folder / "orbax"),
            **torch_sides(loop, folder / "torch"),
        }
        for name, measure in measures.items():
            if FLAGS.sides and name not in FLAGS.sides:
                continue
            found = measure()
            write, read = (bytes_held / 1e9 / statistics.median(found[what]) for what in ("write", "read"))
            print(
                f"| {size}, {bytes_held / 1e6:.0f} MB, step {1e3 * step:.0f} ms | {name} | {show(found.get('first'))} "
                f"| {show(found.get('stall'))} | {show(found.get('drag'))} | {show(found['write'])} "
                f"| {write:.2f} | {read:.2f} |",
                flush=True,
            )
        shutil.rmtree(folder)


if __name__ == "__main__":
    app.run(main)
