"""Sweeps: many runs of one config. This file has the names that a sweep file imports.

algebra.py          points and how they are combined; definition.py: a sweep file, loaded
runs.py             the runs of a sweep, and how far each is, from its files
predict.py          what a run will cost
execute.py          runs them, a few at a time; view.py: what is shown meanwhile
gather.py           their results, by seed; figures.py: plots
scaling_points.py   the same runs as points of a scaling law
"""

from gptjax.sweeping.algebra import Point, chain, choice, grid, log_uniform, named, over, random_subset, seeds, zipped
from gptjax.sweeping.definition import Sweep

__all__ = [
    "Point",
    "Sweep",
    "chain",
    "choice",
    "grid",
    "log_uniform",
    "named",
    "over",
    "random_subset",
    "seeds",
    "zipped",
]
