"""Computes the scores of a task, with standard errors, from the records of its items.

A metric is the mean of its values over the items, and its standard error is the sample's standard deviation over √n.
The perplexity is the exponential of a mean, and its standard error follows by the delta method. BLEU, chrF and macro-F1
are computed from all items together; their standard errors come from 1,000 bootstrap samples with a fixed seed.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptjax.evaluation.tasks.answers import ROUGE_KINDS

BOOTSTRAP = 1000  # samples
BOOTSTRAP_SEED = 12345
NORMAL_95 = 1.959964  # this many standard errors to each side of a mean cover 95 %


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and whether higher is better.

    Attributes:
      words: its name in tables.
      scale: the factor for its value in tables.
    """

    words: str
    scale: float = 100.0
    unit: str = "%"
    higher_is_better: bool = True


METRICS = {
    "accuracy": Metric("accuracy"),
    "accuracy_per_token": Metric("accuracy per token"),
    "accuracy_per_byte": Metric("accuracy per byte"),
    "macro_f1": Metric("macro-F1"),
    "bits_per_byte": Metric("bits per byte", 1.0, "", higher_is_better=False),
    "perplexity": Metric("perplexity", 1.0, "", higher_is_better=False),
    "exact_match": Metric("exact match"),
    "squad_exact_match": Metric("SQuAD exact match"),
    "squad_f1": Metric("SQuAD F1"),
    "final_number": Metric("final number"),
    "bleu": Metric("BLEU", 1.0, ""),
    "chrf": Metric("chrF", 1.0, ""),
    **{kind: Metric(kind.replace("rouge", "ROUGE-")) for kind in ROUGE_KINDS},
}


LIBRARIES = {"bleu": "sacrebleu", "chrf": "sacrebleu", **dict.fromkeys(ROUGE_KINDS, "rouge_score")}  # of metrics


def missing_library(metrics: Sequence[str]) -> str:
    """Says which library the metrics need that is not installed; '' if none."""
    for metric in metrics:
        if metric in LIBRARIES and importlib.util.find_spec(LIBRARIES[metric]) is None:
            return f"{metric} needs the package {LIBRARIES[metric]}: pip install 'gptjax[eval]'"
    return ""


def item_value(record: Mapping[str, Any], metric: str) -> float:
    """An item's value; the metric is the mean of these values. A perplexity is the exponential of the mean of nats."""
    return -float(record["nats"]) if metric == "perplexity" else float(record[metric])


def scores(records: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Metric → value, standard_error (None for a single item), and for BLEU and chrF the signature."""
    return {metric: _score(records, metric) for metric in metrics} if records else {}


def _score(records: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    if metric in ("bleu", "chrf"):
        return _by_sacrebleu(records, metric)
    if metric == "macro_f1":
        return _macro_f1(records)
    values = np.array([item_value(record, metric) for record in records], np.float64)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    if metric == "perplexity":
        perplexity = math.exp(mean) if mean < 700 else math.inf
        return {"value": perplexity, "standard_error": None if error is None else perplexity * error}
    return {"value": mean, "standard_error": error}


def combined(members: Sequence[Mapping[str, Mapping[str, Any]]], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The unweighted means of the members' scores."""
    found: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        values = [member[metric]["value"] for member in members]
        errors = [member[metric]["standard_error"] for member in members]
        known = None not in errors
        found[metric] = {
            "value": sum(values) / len(values),
            "standard_error": math.sqrt(sum(error**2 for error in errors)) / len(errors) if known else None,
        }
    return found


def sacrebleu_metric(name: str) -> Any:
    """The library's metric with its defaults: BLEU (tokenizer 13a, exponential smoothing) or chrF2."""
    from sacrebleu.metrics import BLEU, CHRF  # installed by the extra `eval`

    return {"bleu": BLEU, "chrf": CHRF}[name]()


def columns_of(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References in `sacrebleu`'s layout: a list of the first reference of each item, a list of the second ones, …"""
    most = max(map(len, references))
    return [[each[k] if k < len(each) else None for each in references] for k in range(most)]


def _by_sacrebleu(records: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    references = columns_of([record["references"] for record in records])
    texts = [record["text"] for record in records]
    metric = sacrebleu_metric(name)
    score = metric.corpus_score(texts, references, n_bootstrap=BOOTSTRAP if len(texts) > 1 else 1)
    signature = str(metric.get_signature())
    half = json.loads(score.format(width=9, signature=signature, is_json=True)).get("confidence_var", 0.0)
    error = half / NORMAL_95 if len(texts) > 1 else None
    return {"value": float(score.score), "standard_error": error, "signature": signature}


def _macro_f1(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The unweighted mean of the F1 of every class."""
    chosen = np.array([record["chosen"] for record in records])
    right = np.array([record["right"] for record in records])
    classes = np.unique(np.concatenate([chosen, right]))

    def score(sample: np.ndarray) -> float:
        ours, theirs = chosen[sample][:, None] == classes, right[sample][:, None] == classes
        hits, asked = (ours & theirs).sum(0), ours.sum(0) + theirs.sum(0)
        there = asked > 0
        return float(np.mean(2 * hits[there] / asked[there]))

    everything, generator = np.arange(len(records)), np.random.default_rng(BOOTSTRAP_SEED)
    samples = [score(generator.choice(everything, len(everything))) for _ in range(BOOTSTRAP)]
    error = float(np.std(samples, ddof=1)) if len(records) > 1 else None
    return {"value": score(everything), "standard_error": error}
