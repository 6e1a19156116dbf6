"""Many runs as one: what a sweep file is written with. The rest of the room is imported where it is used."""

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
