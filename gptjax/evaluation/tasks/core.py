"""CORE: the mean of 22 accuracies, each centred so that guessing scores 0 and a perfect model scores 1.

It is the score of DataComp-LM (Li et al., 2024, arXiv:2406.11794) on 22 tasks of low variance. The numbers of few-shot
examples and the accuracies of guessing are those of its repository (mlfoundations/dclm,
eval/additional_aggregation.json, heavy.yaml and eval_meta_data_v1.csv). The model chooses the option with the highest
log-likelihood per token. A continuation is right if each of its tokens is the most likely one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NAME = "core"
PER_TOKEN, EXACT = "accuracy_per_token", "accuracy"
TASKS: dict[str, tuple[int, str, float]] = {  # card → few-shot examples, metric, accuracy of guessing
    "hellaswag": (0, PER_TOKEN, 0.25),
    "jeopardy": (10, EXACT, 0.0),
    "bigbench_qa_wikidata": (10, EXACT, 0.0),
    "arc_easy": (10, PER_TOKEN, 0.25),
    "arc_challenge": (10, PER_TOKEN, 0.25),
    "copa": (0, PER_TOKEN, 0.5),
    "commonsense_qa": (10, PER_TOKEN, 0.2),
    "piqa": (10, PER_TOKEN, 0.5),
    "openbook_qa": (0, PER_TOKEN, 0.25),
    "lambada": (0, EXACT, 0.0),
    "hellaswag_10_shot": (10, PER_TOKEN, 0.25),
    "winograd": (0, PER_TOKEN, 0.5),
    "winogrande": (0, PER_TOKEN, 0.5),
    "bigbench_dyck_languages": (10, EXACT, 0.0),
    "agi_eval_lsat_ar": (3, PER_TOKEN, 0.2),
    "bigbench_cs_algorithms": (10, EXACT, 0.0),
    "bigbench_operators": (10, EXACT, 0.0),
    "bigbench_repeat_copy_logic": (10, EXACT, 0.0),
    "squad": (10, EXACT, 0.0),
    "coqa": (0, EXACT, 0.0),
    "boolq": (10, PER_TOKEN, 0.62),
    "bigbench_language_identification": (10, PER_TOKEN, 0.091),
}


def centred(accuracy: float, guessing: float) -> float:
    return (accuracy - guessing) / (1 - guessing)


def average(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The centred average over the tasks that have results, with the centred accuracy of each, the names of missing
    tasks, and of those that were asked with another number of examples than CORE's, or on a part of their items. The
    standard error comes from the tasks' items; it is None if that of a task is unknown."""
    tasks: dict[str, float] = {}
    errors: list[float | None] = []
    unlike: list[str] = []
    for name, (few_shot, metric, guessing) in TASKS.items():
        if name in results:
            if results[name]["few_shot"] != few_shot or results[name]["items"] < results[name]["of"]:
                unlike.append(name)
            score = results[name]["scores"][metric]
            tasks[name] = centred(score["value"], guessing)
            error = score["standard_error"]
            errors.append(None if error is None else error / (1 - guessing))
    known = [error for error in errors if error is not None]
    return {
        "value": sum(tasks.values()) / len(tasks),
        "standard_error": math.sqrt(sum(e**2 for e in known)) / len(errors) if len(known) == len(errors) else None,
        "tasks": tasks,
        "of": len(TASKS),
        "missing": [name for name in TASKS if name not in tasks],
        "unlike": unlike,
    }
