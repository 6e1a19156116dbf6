"""How many bands of how many rows find documents of a given similarity: the S-curve of locality-sensitive hashing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gptjax.config import ConfigError


def probability(jaccard: np.ndarray | float, bands: int, rows: int) -> np.ndarray:
    """1 - (1 - Jʳ)ᵇ: that two documents of Jaccard similarity J share at least one key."""
    return 1 - (1 - np.asarray(jaccard, float) ** rows) ** bands


def parameters(threshold: float, permutations: int = 128, recall: float = 0.98) -> tuple[int, int]:
    """(bands, rows) with the most rows, hence fewest false candidates, that still find a pair of similarity
    `threshold` with probability `recall`. False candidates cost little, since they are verified; a lost pair is lost.

    Raises:
      ConfigError: so many permutations cannot reach `recall`.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if probability(threshold, bands, rows) >= recall:
            return bands, rows
    raise ConfigError(
        f"duplicates.permutations = {permutations}: too few to find {recall:.0%} of the pairs of similarity "
        f"duplicates.threshold = {threshold}"
    )


def plot(path: Path, threshold: float, bands: int, rows: int) -> None:
    """Draws the S-curve as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), dpi=100, layout="constrained")
    draw(figure.add_subplot(), threshold, bands, rows)
    figure.savefig(path, metadata={"Software": None})


def draw(axes: Any, threshold: float, bands: int, rows: int) -> None:
    """The S-curve on axes of matplotlib, with the threshold and the share of pairs at it that are found."""
    similarity = np.linspace(0, 1, 501)
    found = float(probability(threshold, bands, rows))
    axes.plot(similarity, probability(similarity, bands, rows), label=f"{bands} bands of {rows} rows")
    axes.axvline(threshold, color="grey", linestyle="--", label=f"threshold {threshold:g}: {found:.1%} found")
    axes.set(xlabel="Jaccard similarity of two documents", ylabel="probability of being compared", xlim=(0, 1))
    axes.set_title("pairs that are compared", loc="left")
    axes.legend(loc="upper left", fontsize="small")
