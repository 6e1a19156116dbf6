"""Draws the loss by learning rate at each depth: python experiments/scaling_laws/learning_rate.py runs/rate/results.csv

Prints the best rate of each depth, by the parabola through the lowest loss and its neighbours in the logarithm of the
rate, and writes learning_rate.png beside this file. Rates are multiples of those of configs/depth.py.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from gptjax.display.figures import STYLE, save_figure


def main(path: str) -> None:
    losses: dict[int, dict[float, float]] = {}
    with open(path, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            depth, rate = re.fullmatch(r"depth=(\d+),rate=([\d.]+)", row["run"]).groups()
            losses.setdefault(int(depth), {})[float(rate)] = float(row["validation/loss"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        print("| depth | " + " | ".join(f"{rate:g}" for rate in losses[1]) + " | best |")
        print("|---" * (len(losses[1]) + 2) + "|")
        for depth, by_rate in losses.items():
            rates, values = map(np.array, zip(*sorted(by_rate.items())))
            lowest = int(np.argmin(values))
            if lowest in (0, len(rates) - 1):
                raise SystemExit(f"depth {depth}: the best rate tried, {rates[lowest]:g}, is at an end")
            near = slice(lowest - 1, lowest + 2)
            curvature, slope, _ = np.polyfit(np.log(rates[near]), values[near], 2)
            best = float(np.exp(-slope / (2 * curvature)))
            print(f"| {depth} | " + " | ".join(f"{value:.3f}" for value in values) + f" | {best:.2f} |")
            axes.plot(rates, values, "o-", label=f"depth {depth}: best at {best:.2f}")
            axes.plot(rates[lowest], values[lowest], "o", markersize=12, fillstyle="none", color="black")
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set(xlabel="learning rates, as a multiple of configs/depth.py's", ylabel="validation loss (nats per byte)")
        axes.legend()
        print("written:", save_figure(figure, Path(__file__).with_name("learning_rate.png")))


if __name__ == "__main__":
    main(sys.argv[1])
