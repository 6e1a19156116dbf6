"""The functions and classes for sweep files. Other modules of this package are imported where they are used."""

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
