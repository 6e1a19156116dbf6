"""Runs a stage over all its shards: skips finished tasks, retries failed ones, and sets aside what keeps failing."""

from __future__ import annotations

import errno
import functools
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gptjax.config import ConfigError, RunError
from gptjax.corpus.engine.stage import Stage, clear_attempts, finished, part_name, perform

STRIKES = 3  # attempts at a task before it is given up
LOST = "its worker died (killed, perhaps because memory ran out)"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no result. `stops`: an exception that ends the run, since all tasks would meet it."""

    reason: str
    details: str = ""
    stops: Exception | None = None


class TaskExecutor(Protocol):
    """Where tasks run: processes here (local.py), Ray or Slurm (gptjax/cluster)."""

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        """Yields (index of an item, `function(item)`, or None if its worker was lost) as each ends, in any order.

        A generator that is closed early leaves no work running.
        """


def run_stage(
    stage: Stage,
    inputs: Sequence[Any],
    work: Path,
    executor: TaskExecutor,
    progress: Callable[[int, dict], None] = lambda number, result: None,
) -> list[dict]:
    """Runs one task for each of `inputs` and returns the results in the order of `inputs`.

    Args:
      inputs: JSON each; task i is number i.
      work: the folder that holds the stages' folders.
      progress: called with every result, including those of an earlier run.

    Raises:
      RunError: some tasks failed three times each; the others are done, and the same call tries those again.
      ConfigError: a task found an invalid setting.
      OSError: the disk is full.
    """
    folder = work / stage.folder
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[int, dict] = {}
    failures: dict[int, Failure] = {}
    for _ in range(STRIKES):
        clear_attempts(folder)
        # Finished by an earlier run, or by a lost worker: a worker may die after it has published a result.
        for number in [number for number in range(len(inputs)) if number not in results]:
            if result := finished(stage, work, number, inputs[number]):
                results[number] = result
                progress(number, result)
        waiting = [number for number in range(len(inputs)) if number not in results]
        failures = {}
        outcomes = executor.run(functools.partial(attempt, stage, work), [(i, inputs[i]) for i in waiting])
        for index, outcome in outcomes if waiting else ():
            number = waiting[index]
            if isinstance(outcome, dict):
                results[number] = outcome
                progress(number, outcome)
                continue
            failures[number] = outcome or Failure(LOST)
            if stops := failures[number].stops:
                outcomes.close()
                raise stops
        if not failures:
            break
    clear_attempts(folder)
    for number in range(len(inputs)):
        _note(folder / f"{part_name(number)}.failed", failures.get(number))
    if failures:
        number, first = min(failures.items())
        raise RunError(
            f"{stage.name}: {len(failures)} of {len(inputs)} tasks failed {STRIKES} times each, the others are done; "
            f"task {number}: {first.reason} (see {folder / part_name(number)}.failed). The same command "
            "tries them again"
        )
    return [results[number] for number in range(len(inputs))]


def attempt(stage: Stage, work: Path, task: tuple[int, Any]) -> dict | Failure:
    """What a worker runs: returns the task's result, or the reason for its failure."""
    try:
        return perform(stage, work, *task)
    except ConfigError as error:
        return Failure(str(error), stops=error)
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
