"""Runs tasks: computes the model's answers for every item, records them, and computes the scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.evaluation.requests import Answerer
from gptjax.evaluation.tasks.contamination import TrainingText
from gptjax.evaluation.tasks.kinds import KINDS, Item
from gptjax.evaluation.tasks.metrics import combined, scores
from gptjax.evaluation.tasks.records import Records
from gptjax.evaluation.tasks.task import Task

ITEMS = "items"  # the folder of the records
Progress = Callable[[str, int, int], None]  # (task, number of items done, total number of items)


@dataclass(frozen=True)
class Subject:
    """What is evaluated. Records of one subject are never used for another.

    Attributes:
      identity: JSON of everything that the answers depend on: run, step, hashes of checkpoint and tokenizer, length of
        the context, dtype …
      training_text: what is known about contamination.
      writing: JSON of what only the texts that the model writes depend on: number of beams, template of prompts.
    """

    identity: Mapping[str, Any]
    training_text: TrainingText = field(default_factory=TrainingText)
    writing: Mapping[str, Any] = field(default_factory=dict)


def run_tasks(
    tasks: Sequence[Task],
    answerer: Answerer,
    subject: Subject,
    folder: Path | None,
    progress: Progress = lambda task, done, total: None,
    writes: bool = True,
) -> dict[str, dict[str, Any]]:
    """Evaluates a model on tasks.

    Args:
      tasks: as returned by `find_tasks`.
      folder: where records are written, in items/TASK.jsonl; recorded items are not computed again. None: nothing is
        recorded.
      progress: called after every item.
      writes: whether this process writes the records; of several processes, the first one writes and all read.

    Returns:
      task → its result (`result_of`).
    """
    return {task.name: _run(task, answerer, subject, folder, progress, writes) for task in tasks}


def _run(
    task: Task, answerer: Answerer, subject: Subject, folder: Path | None, progress: Progress, writes: bool
) -> dict[str, Any]:
    writing = subject.writing if task.is_generated else {}
    made_with = made_with_of(task.card.hash, task.file_hash, writing, subject.identity)
    path = folder / ITEMS / f"{task.name}.jsonl" if folder else None
    started = time.monotonic()
    with Records(path, made_with, writes) as records:
        left = [item for item in task.items if item.id not in records.found]
        done = len(task.items) - len(left)
        progress(task.name, done, len(task.items))
        for record in _judged(task, left, answerer):
            records.add(record)
            done += 1
            progress(task.name, done, len(task.items))
        found = records.finish([item.id for item in task.items])
    return result_of(task, found, subject) | {"seconds": round(time.monotonic() - started, 3), "asked": len(left)}


def made_with_of(card: str, file: str, writing: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """What the records of a task depend on: hashes of its card and its data, and the subject."""
    return {"card": card, "file": file, **writing, **identity}


def _judged(task: Task, items: Sequence[Item], answerer: Answerer) -> Iterator[dict[str, Any]]:
    """Yields the record of each item as soon as the last of its requests is answered."""
    kind, card = KINDS[task.card.settings.kind], task.card.settings
    requests: list[Any] = []
    owner: list[tuple[int, int]] = []  # request → its item, and its number among the item's requests
    answers: list[list[Any]] = []
    for number, item in enumerate(items):
        asked = task.requests(item)
        owner += [(number, place) for place in range(len(asked))]
        answers.append([None] * len(asked))
        requests += asked
    ask = answerer.generate if task.is_generated else answerer.score
    for index, answer in ask(requests):
        number, place = owner[index]
        answers[number][place] = answer
        if None not in answers[number]:
            item = items[number]
            record: dict[str, Any] = {
                "item": item.id,
                **({"member": item.member} if item.member else {}),
                "prompt": item.prompts[0],
            }
            if card.few_shot:
                record["examples"] = [example.id for example in task.few_shot(item)]
            yield record | kind.judged(card, item, answers[number])


def result_of(task: Task, records: Sequence[Mapping[str, Any]], subject: Subject) -> dict[str, Any]:
    """The result of a task: JSON with scores and standard errors, counts, hashes, members and contamination."""
    card, metrics = task.card.settings, task.card.metrics
    members = _by_member(records)
    result: dict[str, Any] = {
        "kind": card.kind,
        "metric": metrics[0],
        "scores": _scores(task, records),
        "items": len(records),
        "of": task.total,
        "truncated": sum(record["truncated"] > 0 for record in records),
        "skipped": task.skipped,
        **({"empty": sum(not record["text"] for record in records)} if task.is_generated else {}),
        "few_shot": card.few_shot,
        **({"writing": dict(subject.writing)} if task.is_generated and subject.writing else {}),
        "baseline": card.baseline,
        "contamination": _contamination(task, records, subject.training_text),
        "hashes": {"card": task.card.hash, "file": task.file_hash, "prompts": task.prompts_hash()},
    }
    if "macro_f1" in metrics and (labels := _labels(task)):
        result["confusion"] = {"labels": labels, "counts": _confusion(records, len(labels)).tolist()}
    if len(members) > 1:
        result |= {
            "average": card.average,
            "members": {name: {"items": len(some), "scores": scores(some, metrics)} for name, some in members.items()},
        }
    if card.hub.dataset:
        result["hub"] = {"dataset": card.hub.dataset, "task_id": card.hub.task_id}
    return result


def _by_member(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    members: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        members.setdefault(record.get("member", ""), []).append(record)
    return members


def _scores(task: Task, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The scores of some of a task's records: over all of them or, as the card says, the mean over members."""
    members, metrics = _by_member(records), task.card.metrics
    if task.card.settings.average == "members" and len(members) > 1:
        return combined([scores(some, metrics) for some in members.values()], metrics)
    return scores(records, metrics)


def _labels(task: Task) -> list[str]:
    """The names of the classes, where all items have the same choices; otherwise none."""
    choices = {item.continuations for item in task.items}
    return (list(task.card.settings.labels) or list(*choices)) if len(choices) == 1 else []


def _confusion(records: Sequence[Mapping[str, Any]], num_classes: int) -> np.ndarray:
    """int [C, C]: row c, column d: the number of items of class c for which the model chose d."""
    confusion_CC = np.zeros((num_classes, num_classes), int)
    for record in records:
        confusion_CC[record["right"], record["chosen"]] += 1
    return confusion_CC


def _contamination(task: Task, records: Sequence[Mapping[str, Any]], text: TrainingText) -> dict[str, Any] | None:
    """The number of items that the training text contains, and the scores of the others; None if they were not
    compared."""
    name = task.card.settings.contamination or task.name
    if name not in text.sets:
        return None
    shared = {item.id: text.shared_by(name, item) for item in task.items}
    clean = [record for record in records if not shared[record["item"]]]
    return {
        "ngram": text.ngram,
        "contaminated": len(records) - len(clean),
        "clean": len(clean),
        "ngrams": sum(shared.values()),
        "too_short": text.too_short.get(name, 0),
        "clean_scores": _scores(task, clean),
    }
