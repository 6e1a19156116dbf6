"""Runs lm_eval with a model, and turns its output into results, records of the items, and a table."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from gptjax.display.formatting import counted
from gptjax.errors import ConfigError
from gptjax.evaluation.answering import ModelAnswerer
from gptjax.evaluation.harness.library import lm_eval
from gptjax.evaluation.harness.model import Progress, make_model
from gptjax.evaluation.harness.tasks import Loaded
from gptjax.evaluation.tasks.metrics import BOOTSTRAP
from gptjax.evaluation.tasks.records import Records, json_ready
from gptjax.evaluation.tasks.run import ITEMS
from gptjax.files import write_aside

FOLDER, ANSWERS = "harness", "answers.jsonl"
NO_FILTER, NO_VERSION = "none", "Yaml"  # lm_eval's value if there is none
ERROR = "_stderr"
SEEDS = (0, 1234)  # seeds of Python's and NumPy's generators, which some tasks use; lm_eval's defaults


def run_harness(
    loaded: Loaded,
    answerer: ModelAnswerer,
    identity: Mapping[str, Any],
    folder: Path,
    limit: int = 0,
    progress: Progress = lambda kind, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Evaluates a model on tasks of lm_eval.

    Args:
      identity: everything that the answers depend on; answers recorded for another model are not used.
      folder: answers are recorded in harness/answers.jsonl and not computed again; lm_eval's output for each item is
        written into harness/items/TASK.jsonl.
      limit: the number of items per task, from the first one on; 0: all.
      progress: called after every answer.

    Returns:
      task or group → its result: kind, scores with standard errors, counts, version, and lm_eval's hash of the items.

    Raises:
      ConfigError: a template of a task does not match its data.
    """
    from jinja2 import TemplateError  # comes with lm_eval

    random.seed(SEEDS[0])
    np.random.seed(SEEDS[1])
    with Records(folder / FOLDER / ANSWERS, identity) as records:
        model = make_model(answerer, records, progress)
        try:
            found = lm_eval().evaluate(
                lm=model, task_dict=loaded.tasks, limit=limit or None, bootstrap_iters=BOOTSTRAP, log_samples=True
            )
        except TemplateError as error:
            raise ConfigError(
                f"a template of {', '.join(loaded.tasks['tasks'])} does not fit its data: {error}"
            ) from None
    if model.num_truncated:
        loaded.notes.append(f"{counted(model.num_truncated, 'request')} longer than the context, cut at the beginning")
    for name, samples in found["samples"].items():
        _write_samples(samples_path(folder, name), samples)
    return {name: _result(name, found, loaded) for name in found["results"]}


def _result(name: str, found: Mapping[str, Any], loaded: Loaded) -> dict[str, Any]:
    """The result of a task, or of a group with its members' names."""
    metrics, version = found["results"][name], found["versions"].get(name)
    result: dict[str, Any] = {
        "scores": _scores(metrics),
        "items": metrics.get("sample_len", 0),
        "few_shot": found["n-shot"].get(name),
        "version": None if version == NO_VERSION else version,
        "higher_is_better": found["higher_is_better"].get(name, {}),
    }
    if name in loaded.tasks["tasks"]:
        task = loaded.tasks["tasks"][name]
        result |= {
            "kind": task.OUTPUT_TYPE,
            "of": found["n-samples"][name]["original"],
            "hash": _samples_hash(found["samples"][name]),
        }
    else:
        result |= {"kind": "group", "members": list(found["group_subtasks"].get(name, ()))}
    return result


def _scores(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{'acc,none': .5, 'acc_stderr,none': .1, …} → {'acc': {'value': .5, 'standard_error': .1}}; for filtered texts,
    'exact_match,strict-match' is unchanged."""
    scores: dict[str, dict[str, Any]] = {}
    for key, value in metrics.items():
        metric, comma, by = key.partition(",")
        if not comma or metric.endswith(ERROR):
            continue
        error = metrics.get(f"{metric}{ERROR},{by}")
        scores[metric if by == NO_FILTER else key] = {
            "value": float(value) if isinstance(value, int | float | np.number) else value,
            "standard_error": float(error) if isinstance(error, int | float | np.number) else None,
        }
    return scores


def _samples_hash(samples: list[dict[str, Any]]) -> str:
    """lm_eval's hash of a task's items, prompts and answers, which is equal if two evaluations asked the same
    questions."""
    parts = (sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def samples_path(folder: Path, task: str) -> Path:
    """The file of what lm_eval says of each item of a task."""
    return folder / FOLDER / ITEMS / (re.sub(r"[^\w.:-]", "_", task) + ".jsonl")


def _write_samples(path: Path, samples: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    other = lm_eval().utils.handle_non_serializable
    with write_aside(path) as file:
        for sample in samples:
            file.write(
                json.dumps(json_ready(sample), ensure_ascii=False, default=other).encode("utf-8", "replace") + b"\n"
            )


def harness_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row per task and metric, as lm_eval prints them, with fractions from 0 to 1."""
    table = Table(box=None, pad_edge=False)
    for name in ("task of lm_eval", "version", "shots", "items", "metric", "value ± standard error"):
        table.add_column(name, justify="left" if name in ("task of lm_eval", "metric") else "right", no_wrap=True)
    for name, result in results.items():
        of = result.get("of", result["items"])
        items = f"{result['items']:,}" + (f" of {of:,}" if result["items"] < of else "")
        first = (name, _shown(result["version"]), _shown(result["few_shot"]), items)
        for number, (metric, score) in enumerate(result["scores"].items()):
            table.add_row(*(first if number == 0 else ("",) * len(first)), metric, _score_text(score))
    return table


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _score_text(score: Mapping[str, Any]) -> str:
    value, error = score["value"], score["standard_error"]
    if not isinstance(value, float) or not math.isfinite(value):
        return "–"
    return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None and math.isfinite(error) else "")
