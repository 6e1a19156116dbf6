"""Compares generation with Hugging Face transformers: python experiments/throughput/generation.py --batches=1,8

Each side is a separate process (generation_sides.py), and they take turns; one that waits for its turn sleeps on its
standard input. A further side reads as many bytes as the float32 weights have once per token, the lower limit for any
generation with them. Medians and extremes of the turns; the limit of a side is that of its own weights. The share of
the limit is given for the whole text, whose prompt takes arithmetic instead, and for the tokens after the first one.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from pathlib import Path

from absl import app, flags
from generation_sides import NEW, PARAMETERS, PROMPT

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import Side

SIDES = (
    "gptjax",
    "gptjax-bfloat16",
    "gptjax-int8",
    "gptjax-inputs-first",
    "gptjax-tensor=2",
    "gptjax-tensor=1",
    "transformers-compiled",
    "transformers-bfloat16",
    "transformers",
)

NOT_BY_DEFAULT = {"gptjax-inputs-first", "gptjax-tensor=2", "gptjax-tensor=1", "transformers-compiled"}

flags.DEFINE_list("sides", [side for side in SIDES if side not in NOT_BY_DEFAULT], f"Of {', '.join(SIDES)}.")
flags.DEFINE_list("batches", ["1", "8"], "Rows that are generated together.")
flags.DEFINE_integer("repeats", 5, "Turns per side.")
flags.DEFINE_float("pause", 0.3, "Seconds between turns, for the other side's threads to fall asleep.")
flags.DEFINE_string("gptjax_python", sys.executable, "The interpreter that has gptjax and JAX.")
flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch and transformers.")
FLAGS = flags.FLAGS


class Writer(Side):
    """A process of generation_sides.py: `read` returns its facts once it is warm."""

    def __init__(self, name: str, batch: int):
        self.seconds: list[float] = []
        self.prompt_seconds: list[float] = []  # and the first token
        self.processor_seconds: list[float] = []
        python = FLAGS.torch_python if name.startswith("transformers") else FLAGS.gptjax_python
        script = str(Path(__file__).with_name("generation_sides.py"))
        # NumPy's threads: the reading side has its own
        super().__init__([python, script, name, str(batch)], os.environ | {"OPENBLAS_NUM_THREADS": "1"})

    def turn(self) -> None:
        time.sleep(FLAGS.pause)
        answer = self.ask("go")
        self.seconds.append(answer["seconds"])
        self.prompt_seconds.append(answer["prompt_seconds"])
        self.processor_seconds.append(answer["processor_seconds"])


def compare(batch: int) -> tuple[dict[str, Writer], dict[str, str]]:
    """Returns the sides after their turns, and the versions used."""
    sides = {name: Writer(name, batch) for name in ("read", *FLAGS.sides)}
    facts = {name: side.read() for name, side in sides.items()}
    wrong = {name: each["parameters"] for name, each in facts.items() if each["parameters"] != PARAMETERS}
    if wrong:
        raise RuntimeError(f"the sides are not the same model of {PARAMETERS:,} parameters: {wrong}")
    for _ in range(FLAGS.repeats):
        for name, side in sides.items():
            side.turn()
            print(f"batch {batch}, {name}: {side.seconds[-1]:.3f} s", file=sys.stderr, flush=True)
    for side in sides.values():
        side.close()
    return sides, {name: version for each in facts.values() for name, version in each["versions"].items()}


def main(argv: list[str]) -> None:
    del argv
    rows, versions = [], {}
    for batch in map(int, FLAGS.batches):
        sides, found = compare(batch)
        versions |= found
        reading = statistics.median(sides["read"].seconds)
        for name in FLAGS.sides:
            median, used = (statistics.median(of) for of in (sides[name].seconds, sides[name].processor_seconds))
            later = median - statistics.median(sides[name].prompt_seconds)
            size = 1 if name.endswith("int8") else 2 if name.endswith("bfloat16") else 4
            compared = statistics.median(sides[FLAGS.sides[-1]].seconds) / median
            rows.append(
                f"| {batch} | {name} | {median:.2f} ({min(sides[name].seconds):.2f} to {max(sides[name].seconds):.2f}) "
                f"| {used:.2f} | {batch * NEW / median:.1f} | {compared:.2f} "
                f"| {reading * size / 4 / median:.0%} | {reading * (NEW - 1) / NEW * size / 4 / later:.0%} |"
            )
        rate = 4 * PARAMETERS * NEW / reading / 1e9
        rows.append(f"| {batch} | limit: {rate:.0f} GB/s read | {reading:.2f} | | {batch * NEW / reading:.1f} | | | |")
    print(f"{', '.join(f'{name} {version}' for name, version in versions.items())}, Python {platform.python_version()}")
    print(f"{os.cpu_count()} cores, {PROMPT} + {NEW} tokens, {FLAGS.repeats} turns each\n")
    columns = ("batch", "side", "seconds", "processor seconds", "new tokens/s", f"times as fast as {FLAGS.sides[-1]}")
    print(f"| {' | '.join(columns)} | of the limit | without the prompt |\n|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    app.run(main)
