"""Compares the engine with other servers' cores: python experiments/serving/speed.py --torch_python=… --llama_python=…

Each side is a process (speed_sides.py) with the same weights, and they take turns: in a turn, a side gets some requests
of mixed lengths at the same moment. Medians and extremes of the turns. It checks that all sides write the same tokens
greedily, and that the engine compiles nothing while it is measured.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import Side

flags.DEFINE_list("sides", ["gptjax", "gptjax-int8", "transformers", "llama.cpp"], "What to compare.")
flags.DEFINE_list("concurrency", ["1", "8", "32"], "Requests at the same moment.")
flags.DEFINE_integer("repeats", 5, "Turns per side.")
flags.DEFINE_float("pause", 0.3, "Seconds between turns, for the other side's threads to fall asleep.")
flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch and transformers.")
flags.DEFINE_string("llama_python", sys.executable, "The interpreter that has llama-cpp-python.")
FLAGS = flags.FLAGS
SCRIPT = str(Path(__file__).with_name("speed_sides.py"))


def compare(folder: str, concurrency: int) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """The answers of each side's turns, and the versions used."""
    pythons = {"transformers": FLAGS.torch_python, "llama.cpp": FLAGS.llama_python}
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    sides, facts = {}, {}
    for name in FLAGS.sides:  # one after another, so that they do not compile at the same time
        python = pythons.get(name, sys.executable)
        sides[name] = Side([python, SCRIPT, name, folder, str(concurrency)], environment)
        facts[name] = sides[name].read()
        print(f"{concurrency}, {name}: ready after {facts[name]['seconds_to_first']:.0f} s", file=sys.stderr)
    answers: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(FLAGS.repeats):
        for name, side in sides.items():
            time.sleep(FLAGS.pause)
            answers[name].append(side.ask("go"))
            print(f"{concurrency}, {name}: {answers[name][-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    for side in sides.values():
        side.close()
    return answers, {name: version for each in facts.values() for name, version in each["versions"].items()}


def spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main(argv: list[str]) -> None:
    del argv
    print(
        "| requests | side | tokens/s | processor ms per token | to the first token, median s | last s | same texts |"
    )
    print("|---|---|---|---|---|---|---|")
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        if os.spawnl(os.P_WAIT, sys.executable, sys.executable, SCRIPT, "make", folder):
            raise RuntimeError("the model could not be written")
        for concurrency in map(int, FLAGS.concurrency):
            answers, used = compare(folder, concurrency)
            versions |= used
            expected = answers[FLAGS.sides[0]][0]["digests"]
            for name, turns in answers.items():
                if any(turn["compiled"] for turn in turns):
                    raise RuntimeError(f"{name} compiled programs while it was measured")
                same = min(sum(a == b for a, b in zip(turn["digests"], expected)) for turn in turns)
                speeds = [turn["tokens"] / turn["seconds"] for turn in turns]
                costs = [1000 * turn["processor_seconds"] / turn["tokens"] for turn in turns]
                firsts = [statistics.median(turn["firsts"]) for turn in turns]
                last = [max(turn["firsts"]) for turn in turns]
                cells = (concurrency, name, spread(speeds), spread(costs, 1), spread(firsts, 2), spread(last, 2))
                print("| " + " | ".join(map(str, cells)) + f" | {same} of {concurrency} |", flush=True)
    print(", ".join(f"{name} {version}" for name, version in sorted(versions.items())))


if __name__ == "__main__":
    app.run(main)
