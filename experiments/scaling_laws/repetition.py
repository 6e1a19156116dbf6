"""Fits laws of repeated data to published runs: python experiments/scaling_laws/repetition.py

repeated.csv has the final validation losses on C4 that Muennighoff et al. 2023 (arXiv:2305.16264) released in
utils/parametric_fit.ipynb of github.com/huggingface/datablations, as means over seeds. Nothing is trained.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from gptjax.scaling.fit import points_of
from gptjax.scaling.laws import LAWS, Law
from gptjax.scaling.repetition import REPETITION, Repetition, fit_penalty

FILE = Path(__file__).parent / "repeated.csv"
FEWEST_TOKENS = 1e9  # runs on fewer end while the learning rate still warms up
MOST_EPOCHS = 60
SHOWN = ((421.2e6, 100e6), (1096.3e6, 100e6), (1517.3e6, 1.5e9), (2810e6, 1.5e9), (4246.5e6, 12e9))


def runs() -> np.ndarray:
    """Parameters, tokens, unique tokens and loss of the runs to which the law is fitted [runs, 4]."""
    with open(FILE, encoding="utf-8", newline="") as file:
        names = ("parameters", "tokens", "unique_tokens", "loss")
        rows = np.array([[float(row[name]) for name in names] for row in csv.DictReader(file)])
    return rows[(rows[:, 1] >= FEWEST_TOKENS) & (rows[:, 1] <= MOST_EPOCHS * rows[:, 2])]


def main() -> None:
    rows = runs()
    parameters, tokens, unique, losses = rows.T
    law, penalty = fit_penalty(points_of(parameters, tokens, losses), unique)
    print(f"{len(rows)} runs, {np.sum(tokens > unique)} of them on repeated text")
    print(f"L = {law.E:.3f} + {law.A:.1f} / N^{law.alpha:.3f} + {law.B:.1f} / D^{law.beta:.3f}")
    print(f"    + {penalty.penalty:.5f} R^{penalty.delta:.3f} (N / U)^{penalty.kappa:.3f}\n")
    print("| law | median error | root of the mean square |\n|---|---|---|")
    published = LAWS["muennighoff"]
    show("with the penalty, fitted here", law, penalty, rows)
    show("diminishing returns, on the law fitted here", law, REPETITION, rows)
    show("diminishing returns, as published", published, REPETITION, rows)
    print("\n| parameters, unique tokens | epochs: loss measured, with the penalty |\n|---|---|")
    for size, text in SHOWN:
        found = rows[np.isclose(rows[:, 0], size) & np.isclose(rows[:, 2], text)]
        courses = (f"{d / u:.3g}: {loss:.2f}, {penalty.loss(law, n, d, u):.2f}" for n, d, u, loss in found)
        print(f"| {size / 1e6:,.0f}M, {text / 1e9:g}B | {'; '.join(courses)} |")


def show(name: str, law: Law, repetition: Repetition, rows: np.ndarray) -> None:
    errors = np.array([repetition.loss(law, n, d, u) / loss - 1 for n, d, u, loss in rows])
    print(f"| {name} | {np.median(np.abs(errors)):.1%} | {np.sqrt(np.mean(errors**2)):.1%} |")


if __name__ == "__main__":
    main()
