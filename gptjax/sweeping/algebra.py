"""The algebra of sweeps. A point is a set of config settings, a sweep is a list of points, and sweeps can be combined.

  over("model.width", [64, 128])                      one point per value
  seeds(5)                                            seed = 0 … 4
  named({"wide": {"model.width": 512, …}, …})         several settings under one name
  log_uniform("optimizer.learning_rate", 1e-4, 1e-1, count=8, seed=0), choice(…)       values drawn at random
  grid(a, b, …)     joins every point of a with every point of b; the last sweep changes fastest
  zipped(a, b, …)   joins the first point of each sweep, then the second, and so on
  chain(a, b, …)    one sweep after another; repeated points are left out
  random_subset(a, count=20, seed=0)   some points of a, without repetition

These functions read no files and start no runs. A point's name depends only on its own settings, so a sweep that grows
finds its finished runs again. A larger `count` keeps the points that a smaller one drew.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gptjax.config import ConfigError, default, flatten, suggestion

SEED = "seed"  # the field over which results are averaged
SIGNIFICANT_DIGITS = 3  # digits of random values, which are rounded so that the name shows the exact value


@dataclasses.dataclass(frozen=True)
class Point:
    """The settings of one run (dotted field → value), and the labels that form its name, in order."""

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return ",".join(self.labels)

    def __add__(self, other: Point) -> Point:
        """Joins the settings of two points.

        Raises:
          ConfigError: both points set the same field.
        """
        for field in self.settings:
            if field in other.settings:
                both = f"{self.settings[field]!r} and {other.settings[field]!r}"
                raise ConfigError(f"sweep: {field} is set twice in one point, to {both}")
        return Point({**self.settings, **other.settings}, self.labels + other.labels)


Points = list[Point]

# --- points ----------------------------------------------------------------------------------------------------------


def over(field: str, values: Iterable[Any]) -> Points:
    """Returns one point per value of a field, with a label such as `learning_rate=0.001`.

    Raises:
      ConfigError: the field is unknown.
    """
    label = short_name(field)
    return [Point({field: value}, (f"{label}={_value_text(value)}",)) for value in values]


def seeds(count: int, first: int = 0) -> Points:
    """Returns `count` points that differ only in their seed."""
    return over(SEED, range(first, first + count))


def named(settings_by_name: Mapping[str, Mapping[str, Any]]) -> Points:
    """Returns one point per name, with any number of settings.

    Raises:
      ConfigError: a field is unknown.
    """
    for field in itertools.chain.from_iterable(settings_by_name.values()):
        short_name(field)
    return [Point(dict(settings), (name,)) for name, settings in settings_by_name.items()]


def log_uniform(field: str, low: float, high: float, count: int, seed: int) -> Points:
    """Draws `count` values whose logarithm is uniform between log(low) and log(high), rounded to three digits.

    Raises:
      ConfigError: the field is unknown, or 0 < low < high does not hold.
    """
    if not 0 < low < high < math.inf:
        raise ConfigError(f"sweep: log_uniform({field!r}, {low!r}, {high!r}): the limits must be 0 < low < high")
    draws = _generator(field, seed).uniform(math.log(low), math.log(high), count)
    rounded = [float(f"{math.exp(draw):.{SIGNIFICANT_DIGITS}g}") for draw in draws]
    return over(field, [min(max(value, low), high) for value in rounded])


def choice(field: str, values: Sequence[Any], count: int, seed: int) -> Points:
    """Draws `count` times from `values`, uniformly and with repetition; meant to be zipped with other draws."""
    return over(field, [values[index] for index in _generator(field, seed).integers(0, len(values), count)])


# --- sweeps from sweeps ----------------------------------------------------------------------------------------------


def grid(*sweeps: Sequence[Point]) -> Points:
    """Returns every combination of one point from each sweep; `grid()` is one point without settings."""
    return [functools.reduce(Point.__add__, points, Point()) for points in itertools.product(*sweeps)]


def zipped(*sweeps: Sequence[Point]) -> Points:
    """Joins the first points of all sweeps, then the second points, and so on.

    Raises:
      ConfigError: the sweeps are not equally long.
    """
    if len({len(sweep) for sweep in sweeps}) > 1:
        raise ConfigError(f"sweep: zipped sweeps must be equally long, not {', '.join(str(len(s)) for s in sweeps)}")
    return [functools.reduce(Point.__add__, points, Point()) for points in zip(*sweeps)]


def chain(*sweeps: Sequence[Point]) -> Points:
    """Returns one sweep after another; only the first of equal points is kept."""
    points: Points = []
    for point in itertools.chain(*sweeps):
        if point not in points:
            points.append(point)
    return points


def random_subset(points: Sequence[Point], count: int, seed: int) -> Points:
    """Draws `count` of the points (at most all) without repetition, and returns them in their original order."""
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[index] for index in sorted(order[:count])]


# --- names -----------------------------------------------------------------------------------------------------------


@functools.cache
def _short_names() -> dict[str, str]:
    """Returns field → its last part, or its whole name if another section has the same part ('optimizer.name')."""
    fields = list(flatten(default()))
    count = Counter(field.rpartition(".")[2] for field in fields)
    return {field: last if count[last := field.rpartition(".")[2]] == 1 else field for field in fields}


def short_name(field: str) -> str:
    """Returns the name of a field in labels and tables: `learning_rate` for `optimizer.learning_rate`.

    Raises:
      ConfigError: the field is unknown.
    """
    names = _short_names()
    if field not in names:
        raise ConfigError(
            f"sweep: unknown field {field}{suggestion(field, names)} (gptjax train --help_config has all)"
        )
    return names[field]


def _value_text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _generator(field: str, seed: int) -> np.random.Generator:
    """Each field has its own random stream, so that draws for two fields with the same seed are independent."""
    return np.random.default_rng([seed, zlib.crc32(field.encode())])
