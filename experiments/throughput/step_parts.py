"""Divides the time of a step that generates one token of one text: python experiments/throughput/step_parts.py

XLA's profiler records how long each thread runs each operation. The steps are those of NEW further tokens: the times
of a generation of 1 + NEW tokens less those of one of a single token, which reads the prompt as well. The model is that
of generation.py. Medians over turns.
"""

from __future__ import annotations

import collections
import re
import statistics
import tempfile
import time
from pathlib import Path

import jax
from absl import app, flags
from generation_sides import NEW, make_generator, prompts

flags.DEFINE_list("variants", [""], "As after `gptjax-` in generation.py; an empty one is float32.")
flags.DEFINE_integer("repeats", 3, "Turns per variant.")
FLAGS = flags.FLAGS

# Names of operations of the compiled program, without their numbers; the first that fits counts.
PARTS = {
    "products of a row with a matrix": r".*dot_fusion",
    "products by XLA's library": r"ynn_fusion|dot|.*custom-call",
    "": r"ThunkExecutor.*|SlinkyThreadPool.*|end: .*|while|call|conditional",  # contain others, or only wait
    "everything else": r"[a-z].*",
}
CLOCK = "by the clock"


def times(generator, num_new: int) -> collections.Counter:
    """Seconds of all threads for each part of a generation, and by the clock."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            began = time.perf_counter()
            generator.generate(prompts(1).tolist(), max_new_tokens=num_new, temperature=0.0)
            seconds = collections.Counter({CLOCK: time.perf_counter() - began})
        (file,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                if not line.name.startswith("tf_XLA"):
                    continue
                for event in line.events:
                    name = re.sub(r"[.\d]+$", "", event.name)
                    part = next((part for part, names in PARTS.items() if re.fullmatch(names, name)), "")
                    seconds[part] += event.duration_ns / 1e9
    return seconds


def main(argv: list[str]) -> None:
    del argv
    print(f"jax {jax.__version__}, {FLAGS.repeats} turns, milliseconds per step\n")
    columns = [part for part in PARTS if part]
    print(f"| weights | {' | '.join(columns)} | {CLOCK} |\n|{'---|' * (len(columns) + 2)}")
    for variant in FLAGS.variants:
        generator, _ = make_generator(variant, 1)
        turns: list[collections.Counter] = []
        for turn in range(1 + FLAGS.repeats):
            all_seconds, first = times(generator, 1 + NEW), times(generator, 1)
            all_seconds.subtract(first)
            turns += [all_seconds] * bool(turn)  # not the first, which compiles
        cells = []
        for part in (*columns, CLOCK):
            steps = [1e3 * seconds[part] / NEW for seconds in turns]
            cells.append(f"{statistics.median(steps):.1f} ({min(steps):.1f} to {max(steps):.1f})")
        print(f"| {variant or 'float32'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
