"""Finds each width's best learning rate in results.csv: python experiments/learning_rate_by_width/best.py RESULTS.csv

Between the rates that were tried it is the minimum of the parabola through the lowest mean and its neighbours, over the
logarithm of the rate; its spread comes from the same with each seed alone.
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict

import numpy as np

RATE, WIDTH, LOSS = "optimizer.learning_rate", "model.width", "validation/loss"


def lowest(loss_by_rate: dict[float, float]) -> float:
    """Returns the minimum of a parabola in log rate; if the best rate is the first or the last, that rate."""
    rates = sorted(loss_by_rate)
    best = min(range(len(rates)), key=lambda i: loss_by_rate[rates[i]])
    if best in (0, len(rates) - 1):
        return rates[best]
    around = rates[best - 1 : best + 2]
    a, b, _ = np.polyfit(np.log(around), [loss_by_rate[rate] for rate in around], 2)
    return math.exp(-b / (2 * a))


def main(path: str) -> None:
    losses: dict[int, dict[str, dict[float, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )  # width → seed → rate → loss
    with open(path, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["state"] == "finished":
                losses[int(row[WIDTH])][row["seed"]][float(row[RATE])] = float(row[LOSS])
    print("| width | best rate tried | mean loss there | by the parabola | each seed alone |\n|---|---|---|---|---|")
    found = {}
    for width, by_seed in losses.items():
        rates = set.intersection(*(set(by_rate) for by_rate in by_seed.values()))
        mean = {rate: float(np.mean([by_rate[rate] for by_rate in by_seed.values()])) for rate in rates}
        best = min(mean, key=mean.get)
        found[width] = lowest(mean)
        seeds = ", ".join(f"{lowest(by_rate):.4f}" for by_rate in by_seed.values())
        print(f"| {width} | {best} | {mean[best]:.3f} | {found[width]:.4f} | {seeds} |")
    slope = np.polyfit(np.log(list(found)), np.log(list(found.values())), 1)[0]
    print(f"\nbest rate ∝ width^{slope:.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
