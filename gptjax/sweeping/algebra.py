"""The algebra of sweeps: a sweep is a list of points, a point is some settings of a config, and sweeps make sweeps.

  over("model.width", [64, 128])                      a point for each value
  seeds(5)                                            seed = 0 … 4
  named({"wide": {"model.width": 512, …}, …})         several settings under one name
  log_uniform("optimizer.learning_rate", 1e-4, 1e-1, count=8, seed=0), choice(…)       drawn at random
  grid(a, b, …)     every point of a with every point of b: settings joined, the last changes fastest
  zipped(a, b, …)   the first with the first, the second with the second, …
  chain(a, b, …)    one after the other; a point that comes again is left out
  random_subset(a, count=20, seed=0)   some points of a, without repetition

Pure: nothing is read and nothing is run. A point's name follows from its own settings alone, so that a sweep that
grows finds its finished runs again; random draws are such that a larger `count` keeps the earlier points.
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

SIGNIFICANT_DIGITS = 3  # of random draws: what is run is what the name says


@dataclasses.dataclass(frozen=True)
class Point:
    """Settings of one run: dotted field → value, and the labels that make up its name, in the order they were given."""

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return ",".join(self.labels)

    def __add__(self, other: Point) -> Point:
        """Both points' settings in one.

        Raises:
          ConfigError: both set the same field.
        """
        for field in self.settings:
            if field in other.settings:
                both = f"{self.settings[field]!r} and {other.settings[field]!r}"
                raise ConfigError(f"sweep: {field} is set twice in one point, to {both}")
        return Point({**self.settings, **other.settings}, self.labels + other.labels)


Points = list[Point]

# --- points ----------------------------------------------------------------------------------------------------------


def over(field: str, values: Iterable[Any]) -> Points:
    """A point for each value of one field, labelled as `learning_rate=0.001`.

    Raises:
      ConfigError: no such field.
    """
    label = short_name(field)
    return [Point({field: value}, (f"{label}={_value_text(value)}",)) for value in values]


def seeds(count: int, first: int = 0) -> Points:
    """`count` points that differ by their seed alone."""
    return over("seed", range(first, first + count))


def named(settings_by_name: Mapping[str, Mapping[str, Any]]) -> Points:
    """A point for each name, with any number of settings.

    Raises:
      ConfigError: no such field.
    """
    for field in itertools.chain.from_iterable(settings_by_name.values()):
        short_name(field)
    return [Point(dict(settings), (name,)) for name, settings in settings_by_name.items()]


def log_uniform(field: str, low: float, high: float, count: int, seed: int) -> Points:
    """`count` values drawn so that their logarithm is uniform between those of `low` and `high`, to three digits.

    Raises:
      ConfigError: no such field, or the interval is not 0 < low < high.
    """
    if not 0 < low < high < math.inf:
        raise ConfigError(f"sweep: log_uniform({field!r}, {low!r}, {high!r}): the limits must be 0 < low < high")
    draws = _generator(field, seed).uniform(math.log(low), math.log(high), count)
    rounded = [float(f"{math.exp(draw):.{SIGNIFICANT_DIGITS}g}") for draw in draws]
    return over(field, [min(max(value, low), high) for value in rounded])


def choice(field: str, values: Sequence[Any], count: int, seed: int) -> Points:
    """`count` draws from `values`, each as likely as the next, with repetition: to be zipped with other draws."""
    return over(field, [values[index] for index in _generator(field, seed).integers(0, len(values), count)])


# --- sweeps from sweeps ----------------------------------------------------------------------------------------------


def grid(*sweeps: Sequence[Point]) -> Points:
    """Every combination of a point of each; `grid()` is one point without settings."""
    return [functools.reduce(Point.__add__, points, Point()) for points in itertools.product(*sweeps)]


def zipped(*sweeps: Sequence[Point]) -> Points:
    """The first points of all joined, the second ones, and so on.

    Raises:
      ConfigError: they are not equally long.
    """
    if len({len(sweep) for sweep in sweeps}) > 1:
        raise ConfigError(f"sweep: zipped sweeps must be equally long, not {', '.join(str(len(s)) for s in sweeps)}")
    return [functools.reduce(Point.__add__, points, Point()) for points in zip(*sweeps)]


def chain(*sweeps: Sequence[Point]) -> Points:
    """One sweep after the other; of equal points the first stays."""
    points: Points = []
    for point in itertools.chain(*sweeps):
        if point not in points:
            points.append(point)
    return points


def random_subset(points: Sequence[Point], count: int, seed: int) -> Points:
    """`count` of the points (all, when there are no more) at random, without repetition and in their order."""
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[index] for index in sorted(order[:count])]


# --- names -----------------------------------------------------------------------------------------------------------


@functools.cache
def _short_names() -> dict[str, str]:
    """Field → its last part, or the whole where another section has the same ('optimizer.name', 'schedule.name')."""
    fields = list(flatten(default()))
    count = Counter(field.rpartition(".")[2] for field in fields)
    return {field: last if count[last := field.rpartition(".")[2]] == 1 else field for field in fields}


def short_name(field: str) -> str:
    """The name of a field in labels and tables: `learning_rate` for `optimizer.learning_rate`.

    Raises:
      ConfigError: no such field.
    """
    names = _short_names()
    if field not in names:
        raise ConfigError(f"sweep: unknown field {field}{suggestion(field, names)} (gptjax/config.py has all)")
    return names[field]


def _value_text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _generator(field: str, seed: int) -> np.random.Generator:
    """Each field has a stream of its own: draws for two fields with one seed are independent."""
    return np.random.default_rng([seed, zlib.crc32(field.encode())])
