"""Compares training speed with PyTorch in one run: python experiments/throughput/training.py --shapes=tiny,small

Each side is a separate process, and they take turns, A B A B: a process that waits for its turn sleeps on its standard
input, so their thread pools never run at once. Medians and extremes of the turns.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from absl import app, flags
from training_shapes import DTYPES, SHAPES, STYLES

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import Side

flags.DEFINE_list("shapes", list(SHAPES), f"Which of {', '.join(SHAPES)}.")
flags.DEFINE_list("styles", list(STYLES), f"Which of {', '.join(STYLES)}.")
flags.DEFINE_list("dtypes", ["float32"], f"Which of {', '.join(DTYPES)}.")
flags.DEFINE_integer("repeats", 7, "Turns per side.")
flags.DEFINE_float("pause", 0.3, "Seconds between turns, for the other side's threads to fall asleep.")
flags.DEFINE_string("gptjax_python", sys.executable, "The interpreter that has gptjax and JAX.")
flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch and transformers.")
FLAGS = flags.FLAGS


class Steps(Side):
    """A process of training_sides.py. It has `facts` once it is compiled and warm."""

    def __init__(self, python: str, name: str, shape: str, style: str, dtype: str):
        self.seconds_per_step: list[float] = []
        self.loss = float("nan")
        super().__init__([python, str(Path(__file__).with_name("training_sides.py")), name, shape, style, dtype])
        self.facts = self.read()

    def turn(self, steps: int) -> None:
        time.sleep(FLAGS.pause)
        result = self.ask(steps)
        self.seconds_per_step.append(result["seconds"] / steps)
        self.loss = result["loss"]


def compare(shape: str, style: str, dtype: str) -> dict[str, Steps]:
    pythons = {"gptjax": FLAGS.gptjax_python, "torch": FLAGS.torch_python}
    sides = {name: Steps(python, name, shape, style, dtype) for name, python in pythons.items()}
    counts = {side.facts["parameters"] for side in sides.values()}
    if len(counts) > 1:
        raise RuntimeError(f"{shape} {style}: the sides do not train the same model, parameters {counts}")
    for _ in range(FLAGS.repeats):
        for side in sides.values():
            side.turn(SHAPES[shape].steps)
    for side in sides.values():
        side.close()
    return sides


def milliseconds(values: list[float]) -> str:
    return f"{1e3 * statistics.median(values):.1f} ({1e3 * min(values):.1f} to {1e3 * max(values):.1f})"


def main(argv: list[str]) -> None:
    rows = []
    for shape in FLAGS.shapes:
        for style in FLAGS.styles:
            for dtype in FLAGS.dtypes:
                sides = compare(shape, style, dtype)
                ours, theirs = sides["gptjax"], sides["torch"]
                median = statistics.median(ours.seconds_per_step)
                tokens_per_second = SHAPES[shape].tokens / median
                rows.append(
                    f"| {SHAPES[shape]} | {style} | {dtype} | {milliseconds(ours.seconds_per_step)} "
                    f"| {milliseconds(theirs.seconds_per_step)} "
                    f"| {statistics.median(theirs.seconds_per_step) / median:.2f} "
                    f"| {tokens_per_second:,.0f} | {tokens_per_second * ours.facts['flops_per_token'] / 1e9:.0f} "
                    f"| {ours.facts['seconds_to_first_step']:.0f} · {theirs.facts['seconds_to_first_step']:.0f} |"
                )
                print(rows[-1], f"loss {ours.loss:.3f} {theirs.loss:.3f}", file=sys.stderr, flush=True)
    versions = ours.facts["versions"] | theirs.facts["versions"]
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{software}; {cpu_name()}, {os.cpu_count()} cores")
    print(f"threads: gptjax {ours.facts['threads']}, torch {theirs.facts['threads']}; {FLAGS.repeats} turns each\n")
    print("| shape | style | dtype | gptjax ms/step | torch ms/step | torch / gptjax | tokens/s | GFLOP/s | start, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    app.run(main)
