"""Draws the training and validation loss of runs side by side, in bits per byte, where they can be compared.

  python experiments/from_scratch/draw.py runs/verdict runs/verdict_small runs/verdict_124m

Nats per token of different vocabularies cannot be compared, since a token of a small vocabulary is a smaller part of
the text. The training loss has one mark per 10 steps.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from gptjax.training.records.writers import read_metrics


def bits_per_nat(rows: list[dict]) -> float:
    """Bits per byte for each nat per token of the validation text."""
    row = next(row for row in rows if "validation/bits_per_byte" in row)
    return row["validation/bits_per_byte"] / row["validation/loss"]


def write_picture(figure: Figure, output: Path) -> None:
    """Takes unneeded lines away from the panels of a figure, and writes it as a small file."""
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(output, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("verdict.png"))
    options = parser.parse_args()
    size = (3.6 * len(options.runs), 3)
    figure, panels = plt.subplots(1, len(options.runs), figsize=size, sharey=True, squeeze=False)
    for run, panel in zip(options.runs, panels[0]):
        rows = read_metrics(run / "metrics.jsonl")
        factor = bits_per_nat(rows)
        for name, label in (("train/loss", "training"), ("validation/loss", "validation")):
            points = [(row["step"], row[name] * factor) for row in rows if name in row]
            panel.plot(*zip(*points), marker=".", label=label)
        best = min(row["validation/loss"] for row in rows if "validation/loss" in row) * factor
        panel.set_title(f"{run.name}: best {best:.2f}", fontsize=9)
        panel.set_xlabel("step")
        panel.set_ylim(0, math.ceil(panel.get_ylim()[1]))
    panels[0][0].set_ylabel("bits per byte")
    write_picture(figure, options.output)


if __name__ == "__main__":
    main()
