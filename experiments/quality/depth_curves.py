"""Draws and tabulates depth.py's runs: python experiments/quality/depth_curves.py runs/wikitext2 runs/books

Plots bits per byte of the validation split against tokens and against FLOPs into depth.png, one row of panels per data
set.
"""

from __future__ import annotations

from pathlib import Path

import depth
import matplotlib
import numpy as np
from absl import app
from matplotlib.figure import Figure

from gptjax.display.figures import STYLE, save_figure
from gptjax.training.records.writers import FILE_NAME, read_metrics

METRIC = "validation/bits_per_byte"


def course(workdir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns (tokens, bits per byte) of every evaluation."""
    rows = [row for row in read_metrics(workdir / FILE_NAME) if METRIC in row]
    return np.array([row["tokens"] for row in rows]), np.array([row[METRIC] for row in rows])


def main(argv: list[str]) -> None:
    folders = [Path(folder) for folder in argv[1:]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2 * len(folders)), layout="constrained")
        panels = figure.subplots(len(folders), 2, squeeze=False, sharey="row")
        for folder, (by_tokens, by_flops) in zip(folders, panels):
            shared = depth.num_tokens(max(depth.DEPTHS))  # the tokens of the deepest model
            print(f"\n| {folder.name}: depth | tokens | bits per byte | after {shared:,} tokens |\n|---|---|---|---|")
            for layers in depth.DEPTHS:
                tokens, bits = course(folder / f"depth={layers}")
                early = np.interp(np.log(shared), np.log(tokens), bits, left=np.nan)  # nan: not evaluated as early
                print(f"| {layers} | {tokens[-1]:,} | {bits[-1]:.3f} | {early:.3f} |")
                by_tokens.plot(tokens, bits, "o-", markersize=3, label=f"depth {layers}")
                by_flops.plot(tokens * depth.flops_per_token(layers), bits, "o-", markersize=3, label=f"depth {layers}")
            by_tokens.set(xscale="log", xlabel="tokens", ylabel="bits per byte", title=folder.name)
            by_flops.set(xlabel="FLOPs", title=folder.name)
            by_flops.legend()
        print(save_figure(figure, Path(__file__).with_name("depth.png")))


if __name__ == "__main__":
    app.run(main)
