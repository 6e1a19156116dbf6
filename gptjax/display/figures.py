"""The style of all plots, and how a plot is written to a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gptjax.files import write_aside

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": "#9aa0a6",
    "xtick.color": "#4a4f55",
    "ytick.color": "#4a4f55",
    "legend.frameon": False,
}


def save_figure(figure: Figure, path: Path) -> Path:
    """Saves a figure in the format of its suffix, atomically, so that a viewer never opens an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix(".").lower())
    with write_aside(path) as file:
        file.write(drawn.getvalue())
    return path
