"""Fits the runs of sweep.py by each approach, predicts the held-out runs, and draws both:

  python experiments/scaling_laws/fit.py runs/isoflop [runs/held_out …]

Writes isoflop.png beside this file. Training curves are needed for the envelope only, so a results.csv alone does, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptjax.display.figures import STYLE, save_figure
from gptjax.scaling import fit as fits
from gptjax.scaling.laws import FLOPS_PER_PARAMETER_AND_TOKEN, Law
from gptjax.sweeping.scaling_points import read_curves, read_final

LEVEL = 0.9
SAMPLES = 200


def main(arguments: list[str]) -> None:
    folders = [Path(each) for each in arguments]
    points = read_final(folders[:1])
    held_out = read_final(folders[1:]) if folders[1:] else None
    print("| FLOPs | sizes tried | best size by the parabola | tokens per parameter there | loss there |")
    print("|---|---|---|---|---|")
    for each in fits.profiles(points):
        sizes = f"{each.parameters[0]:,.0f} to {each.parameters[-1]:,.0f}"
        best = f"{each.best:,.0f}" if each.inside else f"at an end of the sizes, {each.best:,.0f}"
        ratio = each.flops / FLOPS_PER_PARAMETER_AND_TOKEN / each.best**2
        print(f"| {each.flops:.3g} | {sizes} | {best} | {ratio:.1f} | {each.loss:.3f} |")

    fit = fits.parametric_with_intervals(points, SAMPLES)
    splits = {"IsoFLOP profiles": fits.with_intervals(fits.isoflop, points, SAMPLES)}
    if folders[0].is_dir():
        splits = {"envelope": fits.with_intervals(fits.envelope, read_curves(folders[:1]), SAMPLES), **splits}
    splits["parametric"] = fit
    beyond = 4 * points.flops.max()
    print(
        f"\n| approach | a of N ∝ C^a ({LEVEL:.0%}) | best size for {beyond:.2g} FLOPs ({LEVEL:.0%}) |\n|---|---|---|"
    )
    for name, each in splits.items():
        low, high = each.interval(lambda law: law.exponent, LEVEL)
        smallest, largest = each.interval(lambda law: law.optimal(beyond)[0], LEVEL)
        print(
            f"| {name} | {each.law.exponent:.2f} ({low:.2f} to {high:.2f}) | {each.law.optimal(beyond)[0]:,.0f} "
            f"({smallest:,.0f} to {largest:,.0f}) |"
        )
    print("\n| constant | parametric fit |\n|---|---|")
    for name in ("E", "A", "B", "alpha", "beta"):
        low, high = fit.interval(lambda law, name=name: getattr(law, name), LEVEL)
        print(f"| {name} | {getattr(fit.law, name):.4g} ({low:.4g} to {high:.4g}) |")
    print(f"\nresiduals of the runs fitted: {100 * np.std(fit.residuals):.2f} % of the loss")
    if held_out:
        print(f"\n| held out: FLOPs | size | loss predicted ({LEVEL:.0%}) | loss measured |\n|---|---|---|---|")
        for size, tokens, loss, flops in zip(held_out.parameters, held_out.tokens, held_out.losses, held_out.flops):
            low, high = fits.loss_interval(fit, size, tokens, LEVEL)
            predicted = f"{fit.law.loss(size, tokens):.4f} ({low:.4f} to {high:.4f})"
            print(f"| {flops:.3g} | {size:,.0f} | {predicted} | {loss:.4f} |")
    draw(points, fit.law, splits["IsoFLOP profiles"].law, held_out)


def draw(points: fits.Points, law: Law, split, held_out: fits.Points | None) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
        by_size, by_compute = figure.subplots(1, 2)
        draw_profiles(by_size, points, law, held_out)
        found = [each for each in fits.profiles(points) if each.inside]
        grid = np.geomspace(points.flops.min(), 6 * points.flops.max(), 50)
        by_compute.plot(
            grid, split.optimal(grid)[0], "-", color="#3b6fb6", label=f"IsoFLOP: N ∝ C^{split.exponent:.2f}"
        )
        by_compute.plot(
            grid, law.optimal(grid)[0], "--", color="#d1495b", label=f"parametric: N ∝ C^{law.exponent:.2f}"
        )
        by_compute.plot([each.flops for each in found], [each.best for each in found], "o", color="#3b6fb6")
        by_compute.set(xscale="log", yscale="log", xlabel="FLOPs", ylabel="best size (FLOPs per token / 6)")
        by_compute.legend()
        print("written:", save_figure(figure, Path(__file__).with_name("isoflop.png")))


def draw_profiles(axes: Axes, points: fits.Points, law: Law, held_out: fits.Points | None) -> None:
    """Loss by size for each budget: runs, the parabola through them, and the parametric fit."""
    found = fits.profiles(points)
    for color, each in zip(matplotlib.colormaps["viridis"](np.linspace(0.05, 0.8, len(found))), found):
        sizes = np.geomspace(each.parameters[0], each.parameters[-1], 60)
        axes.plot(each.parameters, each.losses, "o", color=color, label=f"{each.flops:.2g} FLOPs")
        axes.plot(sizes, law.loss(sizes, each.flops / FLOPS_PER_PARAMETER_AND_TOKEN / sizes), "--", color=color)
        axes.plot(each.best, each.loss, "+", color=color, markersize=14)
    if held_out:
        flops = held_out.flops.mean()
        sizes = np.geomspace(points.parameters.min() * 4, points.parameters.max() * 2, 60)
        axes.plot(sizes, law.loss(sizes, flops / FLOPS_PER_PARAMETER_AND_TOKEN / sizes), "--", color="#d1495b")
        axes.plot(
            held_out.parameters, held_out.losses, "*", color="#d1495b", markersize=12, label=f"{flops:.2g}, held out"
        )
    axes.set(xscale="log", xlabel="size (FLOPs per token / 6)", ylabel="validation loss (nats per byte)")
    axes.legend(title="dashed: parametric fit; +: minimum", fontsize=8, title_fontsize=8)


if __name__ == "__main__":
    main(sys.argv[1:])
