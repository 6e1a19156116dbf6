"""Compares what lm_eval found for two runs, item by item.

results.json does not say how lm_eval makes a score of its items' numbers. A score is compared in pairs where one of
the common rules gives it for both runs: the mean of the items, or of the members of a group; the perplexity of
continuations; and the perplexities and bits of whole documents by words or bytes. Of any other score, such as an F1 of
all items, the difference has no p-value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gptjax.evaluation.harness.run import NO_FILTER, samples_path
from gptjax.evaluation.paired import MISSING, Difference, Evaluated, Section, paired, unlike_counts, weights_of
from gptjax.evaluation.tasks.metrics import Metric


class _Rule(NamedTuple):
    """How a score may follow from the items: score_of(the weighted mean of their values)."""

    values: Callable[[np.ndarray], np.ndarray]
    weights: np.ndarray | None
    score_of: Callable[[float], float]
    unit: str


class HarnessTasks(Section):
    """The tasks of lm_eval."""

    name = "harness"

    def title(self, task: str) -> str:
        return f"lm_eval: {task}"

    def metrics(self, result: Mapping[str, Any]) -> list[str]:
        return list(result["scores"])

    def how(self, metric: str) -> Metric:
        """As lm_eval shows it: shares from 0 to 1."""
        return Metric(metric, scale=1.0, unit="")

    def difference(self, first: Evaluated, second: Evaluated, task: str, metric: str) -> Difference:
        """For a perplexity it is the difference of the logarithms, in nats."""
        ours, theirs = self.tasks(first)[task], self.tasks(second)[task]
        if unlike := unlike_counts(ours, theirs) or self._unlike_questions(first, second, task):
            return Difference(unlike=unlike)
        shown = [result["scores"][metric]["value"] for result in (ours, theirs)]
        if not all(isinstance(value, float) and math.isfinite(value) for value in shown):
            return Difference()
        a, b = (dict(self._values(run, task, metric)) for run in (first, second))
        if not a or a.keys() != b.keys():
            return Difference(unlike=MISSING)
        try:
            values = [np.array([of[item] for item in a], np.float64) for of in (a, b)]
        except ValueError:  # the numbers of an item are of no common form, such as texts with their references
            return Difference(shown[1] - shown[0])
        members = [member for member, _ in a]
        for rule in _rules(values[0], members):
            of_rule = [rule.values(each) for each in values]
            means = [np.average(each, weights=rule.weights) for each in of_rule]
            if np.isfinite(means).all() and np.allclose([rule.score_of(mean) for mean in means], shown, rtol=1e-6):
                return paired(of_rule[0], of_rule[1], rule.weights, rule.unit)
        return Difference(shown[1] - shown[0])

    def _unlike_questions(self, first: Evaluated, second: Evaluated, task: str) -> str:
        for name in self._leaves(first, task):
            ours, theirs = self.tasks(first)[name], self.tasks(second).get(name)
            if theirs is None or ours["hash"] != theirs["hash"]:
                return "their items or prompts differ"
        return ""

    def _leaves(self, run: Evaluated, task: str) -> list[str]:
        """The task, or those of a group and of the groups in it."""
        members = self.tasks(run)[task].get("members")
        return [task] if members is None else [leaf for member in members for leaf in self._leaves(run, member)]

    def _values(self, run: Evaluated, task: str, metric: str) -> Iterator[tuple[tuple[str, int], Any]]:
        """(task, number of the item) → what lm_eval has noted for the metric."""
        name, _, by = metric.partition(",")
        for leaf in self._leaves(run, task):
            path = samples_path(run.folder, leaf)
            for line in path.read_bytes().splitlines() if path.exists() else ():
                sample = json.loads(line)
                if sample["filter"] == (by or NO_FILTER) and name in sample:
                    yield (leaf, sample["doc_id"]), sample[name]


def _rules(values: np.ndarray, members: list[str]) -> list[_Rule]:
    """The rules that fit numbers of this form.

    Args:
      values: [items], or [items, 2] if lm_eval has noted a log-likelihood and a size for each.
      members: the task of each item.
    """
    if values.ndim == 1:
        return [
            _Rule(lambda x: x, None, float, ""),
            _Rule(lambda x: x, weights_of(members), float, ""),
            _Rule(np.negative, None, math.exp, " nats"),
        ]
    if values.shape[1] != 2 or not values[:, 1].sum() > 0:
        return []
    sizes = values[:, 1]

    def per_unit(x: np.ndarray) -> np.ndarray:
        return -x[:, 0] / np.maximum(sizes, 1)  # an empty document has no weight

    return [
        _Rule(per_unit, sizes / sizes.sum(), math.exp, " nats"),
        _Rule(lambda x: per_unit(x) / math.log(2), sizes / sizes.sum(), float, ""),
    ]
