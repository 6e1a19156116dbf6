"""Tasks: questions with known answers, described by data files.

  tasks, missing = find_tasks("hellaswag,blimp,my/card.toml", data=[Path("data/eval")])
  results = run_tasks(tasks, answerer, Subject(identity), folder)
  write_results(folder, results, …)

From a file to scores, in this order:

card.py             a card describes a task: where its data are, how to ask, what to measure
readers.py          a reader turns the file of data into rows
template.py         prompts with {fields} of a row
kinds.py            a kind turns a row into requests, and the answers into an item's record
task.py             a task with its items, checked before anything is computed
run.py              asks a model all items; records.py: each answer on disk as soon as it is known
answers.py          the score of one generated answer; metrics.py: the scores of a task, with standard errors
contamination.py    which items the training text contains
core.py             CORE, an average over 22 tasks
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptjax.errors import ConfigError
from gptjax.evaluation.tasks import card, core
from gptjax.evaluation.tasks.metrics import missing_library
from gptjax.evaluation.tasks.run import Subject, run_tasks
from gptjax.evaluation.tasks.task import DATA_OPTION, Task, is_at_hand, load

__all__ = ["Subject", "Task", "find_tasks", "run_tasks"]


def find_tasks(
    names: str,
    data: Sequence[Path] = (),
    *,
    also: Sequence[Path] = (),
    limit: int = 0,
    option: str = "--tasks",
    data_option: str = DATA_OPTION,
    **changes: Any,
) -> tuple[list[Task], list[str]]:
    """Reads the cards and data of tasks, and checks them.

    Args:
      names: names of cards in configs/tasks, paths of cards, and `core`, separated by commas.
      data: folders of data files, which --task_data names.
      also: folders to search after those.
      limit: the maximum number of items per task, chosen by the card's seed; 0: all.
      option, data_option: the flags or fields that name the tasks and the folders of their data, for messages.
      changes: settings that replace those of all cards, such as few_shot=0; None: no change.

    Returns:
      the tasks, and the names of tasks of `core` without data.

    Raises:
      ConfigError: there is no such task, a card is invalid, a metric's library is not installed, or data are missing
        or invalid.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ConfigError(f"{option}={names}: must name tasks, such as {option}=hellaswag,blimp")
    for folder in data:
        if not folder.is_dir():
            raise ConfigError(f"--task_data={folder}: must be a folder, but there is no folder of this name")
    data = [*data, *also]
    changes = {key: value for key, value in changes.items() if value is not None}
    cards: dict[str, card.Card] = {}
    missing: list[str] = []
    for name in wanted:
        if name == core.NAME:
            of_core = {each: card.read(path, **changes) for each, path in card.shipped().items() if each in core.TASKS}
            cards |= {each: of_core[each] for each in core.TASKS if is_at_hand(of_core[each], data)}
            missing += [each for each in core.TASKS if each not in cards]
            if len(missing) == len(core.TASKS):
                where = ", ".join(map(str, data)) or f"no folder ({data_option} names one)"
                raise ConfigError(f"{option}={name}: the data of its tasks were not found in {where}")
            continue
        found = card.read(card.find(name, option), **changes)
        if cards.setdefault(found.name, found).folder != found.folder:
            raise ConfigError(f"{option}: two cards are named {found.name}; rename one")
    for each in cards.values():
        if problem := missing_library(each.metrics):
            raise ConfigError(f"{each.name}: metrics: {problem}")
    return [load(each, data, limit, data_option) for each in cards.values()], missing
