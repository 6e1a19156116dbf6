"""How the scores of two evaluated runs differ over the same items.

Runs that answered the same items are compared item by item, which finds smaller differences than the standard errors of
the two scores suggest. The p-value is that of McNemar's exact test if all values are 0 or 1, of the paired t-test for
other values, and of the normal distribution if items have unequal weights. All p-values are two-sided and for a single
comparison: among many tasks, some are small by chance.
"""

from __future__ import annotations

import abc
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy  # imports scipy.stats, which takes long, when it is first used

from gptjax.evaluation.tasks.metrics import Metric

MISSING = "the records of items are missing or belong to another evaluation"


@dataclass(frozen=True)
class Evaluated:
    """The results of one run's checkpoint."""

    name: str
    folder: Path
    results: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """The difference of two runs in one metric of a task: the second minus the first.

    Attributes:
      value: the difference.
      p: its p-value; NaN if it has none.
      unit: the unit of the value, if it is not that of the score.
      unlike: why the two cannot be compared; "" if they can.
    """

    value: float = math.nan
    standard_error: float = math.nan
    p: float = math.nan
    unit: str = ""
    unlike: str = ""


class Section(abc.ABC):
    """A section of results.json that holds tasks with scores, and how they are compared.

    Attributes:
      name: the section's name.
    """

    name: ClassVar[str]

    def tasks(self, run: Evaluated) -> dict[str, dict[str, Any]]:
        return run.results.get(self.name, {})

    def title(self, task: str) -> str:
        """The task's name for people."""
        return task

    @abc.abstractmethod
    def metrics(self, result: Mapping[str, Any]) -> list[str]:
        """The metrics that are shown, the most important one first."""

    @abc.abstractmethod
    def how(self, metric: str) -> Metric:
        """How a metric is shown."""

    def guessing(self, result: Mapping[str, Any]) -> float | None:
        """The score of guessing in the first metric; None if it is not known."""
        return None

    @abc.abstractmethod
    def difference(self, first: Evaluated, second: Evaluated, task: str, metric: str) -> Difference:
        """The difference between the second and the first run in a metric of a task, over the same items."""


def paired(a: np.ndarray, b: np.ndarray, weights: np.ndarray | None = None, unit: str = "") -> Difference:
    """The mean of b − a over items, its standard error, and its p-value.

    weights: the weights of the items, which sum to 1; None: equal weights. With unequal weights, the p-value is that of
      the normal distribution.
    """
    differences = b - a
    if weights is not None and np.ptp(weights) > 1e-12:
        mean = float(weights @ differences)
        error = math.sqrt(float(np.square(weights) @ np.square(differences - mean)))
        p = 2 * float(scipy.stats.norm.sf(abs(mean) / error)) if error else 1.0
        return Difference(mean, error, p, unit)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(a)) if len(a) > 1 else math.nan
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        won, lost = int((differences > 0).sum()), int((differences < 0).sum())
        p = float(scipy.stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    elif not differences.any():
        p = 1.0
    else:
        p = float(scipy.stats.ttest_rel(b, a).pvalue) if len(a) > 1 else math.nan
    return Difference(mean, error, p, unit)


def weights_of(members: Sequence[str]) -> np.ndarray:
    """The weight of each item in a mean of members' means.

    members: the member that each item belongs to.
    """
    sizes = Counter(members)
    return np.array([1 / (len(sizes) * sizes[member]) for member in members])


def unlike_counts(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Why two results do not belong to the same questions, as far as their counts show; '' if they may."""
    if list(ours["scores"]) != list(theirs["scores"]):
        return f"metrics {', '.join(ours['scores'])} and {', '.join(theirs['scores'])}"
    for key, words in (("few_shot", "few-shot examples"), ("items", "items")):
        if ours[key] != theirs[key]:
            return f"{ours[key] or 0:,} and {theirs[key] or 0:,} {words}"
    return ""
