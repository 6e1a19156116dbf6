"""Compares training speed with PyTorch's `nn.Transformer`: python experiments/translation/speed.py --data=data/fra_eng

Each side is a separate process, gptjax_side.py and pytorch_side.py, and they take turns: a process that waits sleeps on
its standard input, so their threads never run at once. Prints the wall-clock seconds and processor seconds per step of
each side, and the ratio of each pair of turns: medians, with extremes in brackets. On a busy machine wall-clock seconds
mean little, and the ratios of neighbouring turns somewhat more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import Side

HERE = Path(__file__).parent
KINDS = {"seconds": "wall-clock seconds", "processor_seconds": "processor seconds"}


class Steps(Side):
    """A process that takes steps when it is told to. It has `facts` once it is compiled and warm."""

    def __init__(self, *command: str):
        self.turns: list[dict[str, float]] = []
        super().__init__(command, {**os.environ, "OMP_WAIT_POLICY": "passive"})  # otherwise PyTorch's threads spin
        self.facts = self.read()

    def turn(self, steps: int) -> None:
        found = self.ask(steps)
        self.turns.append({kind: found[kind] / steps for kind in KINDS} | {"loss": found["loss"]})


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=20, help="steps per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--torch_python", default=sys.executable, help="the interpreter that has PyTorch and gptjax")
    parser.add_argument("--compile", action="store_true", help="compile PyTorch's side with torch.compile")
    options = parser.parse_args()
    common = (f"--data={options.data}", "--steps=1500")
    theirs = Steps(
        *(options.torch_python, str(HERE / "pytorch_side.py"), *common, "--turns"),
        *(["--compile"] if options.compile else []),
    )
    ours = Steps(sys.executable, str(HERE / "gptjax_side.py"), *common)
    for number in range(options.turns):
        for side in (ours, theirs):
            side.turn(options.steps)
        print(f"turn {number + 1}: {ours.turns[-1]} {theirs.turns[-1]}", file=sys.stderr, flush=True)
    for side in (ours, theirs):
        print(json.dumps(side.facts))
        side.close()
    print(f"{options.turns} turns of {options.steps} steps each, seconds per step\n")
    print("| | gptjax | PyTorch | PyTorch / gptjax |\n|---|---|---|---|")
    for kind, words in KINDS.items():
        mine, other = ([turn[kind] for turn in side.turns] for side in (ours, theirs))
        ratios = [b / a for a, b in zip(mine, other)]
        print(f"| {words} | {spread(mine)} | {spread(other)} | {spread(ratios)} |")


if __name__ == "__main__":
    main()
