"""Runs a stage over all its shards: skips finished tasks, retries failed ones, and gives up what keeps failing.

A task may fail because a document ends the process: then the document is set aside at its third strike (journal.py),
and the task goes on. A task is given up at its third failure that no known document explains.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gptjax.config import ConfigError, RunError
from gptjax.corpus.engine.journal import FILE as JOURNAL
from gptjax.corpus.engine.journal import STRIKES, read_place
from gptjax.corpus.engine.stage import (
    ATTEMPT,
    EndedAt,
    Stage,
    clear_attempts,
    finished,
    part_name,
    perform,
)
from gptjax.files import write_aside

MOST_SET_ASIDE = 100  # documents of one task that end its process, before it is given up
KILLED = "killed, perhaps because memory ran out"
NO_MEMORY = "memory ran out"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no result.

    Attributes:
      stops: an exception that ends the run, since all tasks would meet it.
      how: how its process ended, if it did. at: the document at which memory ran out, if that did not end the process.
    """

    reason: str
    details: str = ""
    stops: Exception | None = None
    how: str = ""
    at: str = ""


def lost(how: str) -> Failure:
    """The failure of an attempt whose process ended."""
    return Failure(f"its worker died ({how})", how=how)


@dataclass(frozen=True)
class Limits:
    """Of an attempt. seconds: at one document; 0: any. driver: the process that is not to be killed for that."""

    seconds: float
    driver: tuple[str, int]


class TaskExecutor(Protocol):
    """Where tasks run: processes here (local.py), Ray or Slurm (gptjax/cluster)."""

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        """Yields (index of an item, `function(item)`) as each ends, in any order.

        If its worker was lost, None stands for the result, or a Failure that says how it ended.

        A generator that is closed early leaves no work running.
        """


def run_stage(
    stage: Stage,
    inputs: Sequence[Any],
    work: Path,
    executor: TaskExecutor,
    progress: Callable[[int, dict], None] = lambda number, result: None,
    seconds: float = 0,
) -> list[dict]:
    """Runs one task for each of `inputs` and returns the results in the order of `inputs`.

    Args:
      inputs: JSON each; task i is number i.
      work: the folder that holds the stages' folders.
      progress: called with every result, including those of an earlier run.
      seconds: what a document may take (Journal).

    Raises:
      RunError: some tasks failed three times each; the others are done, and the same call tries those again.
      ConfigError: a task found an invalid setting.
      OSError: the disk is full.
    """
    folder = work / stage.folder
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[int, dict] = {}
    failures: dict[int, Failure] = {}
    strikes: Counter[int] = Counter()
    ends = _Ends(stage, folder, inputs)
    function = functools.partial(attempt, stage, work, Limits(seconds, (platform.node(), os.getpid())))
    while True:
        clear_attempts(folder)
        # Finished by an earlier run, or by a lost worker: a worker may die after it has published a result.
        for number in [number for number in range(len(inputs)) if number not in results]:
            if result := finished(stage, work, number, inputs[number]):
                results[number] = result
                failures.pop(number, None)
                progress(number, result)
        waiting = [i for i in range(len(inputs)) if i not in results and strikes[i] < STRIKES]
        if not waiting:
            break
        outcomes = executor.run(function, [(i, inputs[i], ends.of(i)) for i in waiting])
        for index, outcome in outcomes:
            number = waiting[index]
            if isinstance(outcome, dict):
                results[number] = outcome
                failures.pop(number, None)
                progress(number, outcome)
                continue
            failures[number] = failure = outcome or lost(KILLED)
            if failure.stops:
                outcomes.close()
                raise failure.stops
            strikes[number] = ends.strikes(number, strikes[number], failure)
    for number in range(len(inputs)):
        _note(folder / f"{part_name(number)}.failed", failures.get(number))
        if number in results:
            ends.forget(number)
    if failures:
        number, first = min(failures.items())
        raise RunError(
            f"{stage.name}: {len(failures)} of {len(inputs)} tasks failed {STRIKES} times each, the others are done; "
            f"task {number}: {first.reason} (see {folder / part_name(number)}.failed). The same command "
            "tries them again"
        )
    return [results[number] for number in range(len(inputs))]


class _Ends:
    """The documents at which attempts ended, by task: kept in files, so that a later run knows them, too."""

    def __init__(self, stage: Stage, folder: Path, inputs: Sequence[Any]):
        self._stage, self._folder, self._inputs = stage, folder, inputs
        self._known: dict[int, dict[str, list[str]]] = {}

    def of(self, number: int) -> dict[str, list[str]]:
        """place → how the processes ended there."""
        if number not in self._known:
            try:
                saved = json.loads(self._path(number).read_text(encoding="utf-8"))
                is_ours = saved["key"] == self._stage.task_key(self._inputs[number])
                self._known[number] = saved["ends"] if is_ours else {}
            except (OSError, ValueError, KeyError, TypeError):
                self._known[number] = {}
        return self._known[number]

    def strikes(self, number: int, before: int, failure: Failure) -> int:
        """A task's strikes after this failure: one more, unless it was at a known document; 0 if that is set aside."""
        attempts = sorted(self._folder.glob(f"{part_name(number)}.*{ATTEMPT}"))
        place = failure.at
        for path in attempts:
            place = place or read_place(path / JOURNAL)
            shutil.rmtree(path, ignore_errors=True)
        if not place or not failure.how:
            return before + 1
        ends = self.of(number)
        ends.setdefault(place, []).append(failure.how)
        with write_aside(self._path(number)) as file:
            file.write(json.dumps({"key": self._stage.task_key(self._inputs[number]), "ends": ends}, indent=1).encode())
        if len(ends[place]) < STRIKES:
            return before + (len(ends[place]) == 1)
        return 0 if sum(len(hows) >= STRIKES for hows in ends.values()) <= MOST_SET_ASIDE else STRIKES

    def forget(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{part_name(number)}.ends"


def attempt(stage: Stage, work: Path, limits: Limits, task: tuple[int, Any, dict]) -> dict | Failure:
    """What a worker runs: returns the task's result, or the reason for its failure."""
    seconds = 0 if limits.driver == (platform.node(), os.getpid()) else limits.seconds
    try:
        return perform(stage, work, *task, seconds)
    except ConfigError as error:
        return Failure(str(error), stops=error)
    except EndedAt as error:
        return Failure(f"MemoryError at {error.place}", how=NO_MEMORY, at=error.place)
    except OSError as error:
        stops = OSError(error.errno, f"{stage.name}: {error}") if error.errno in _DISK_FULL else None
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc(), stops)
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


def _note(path: Path, failure: Failure | None) -> None:
    if failure is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(f"{failure.reason}\n{failure.details}")
