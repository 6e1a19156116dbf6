"""The folder of a run's checkpoints: the steps that it has, the best of them, and the newest that can be read."""

from __future__ import annotations

import functools
import math
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from absl import logging

from gptjax.config import ConfigError
from gptjax.errors import setting_text
from gptjax.evaluation.scores import LOSS, SET
from gptjax.files.paths import local_path
from gptjax.training.checkpoints import format as files
from gptjax.training.checkpoints.format import CheckpointError
from gptjax.training.checkpoints.frozen_parameters import is_folder_of_frozen

JUDGED_BY = "judged_by"  # metadata key: [name of the score that selects the best checkpoint, whether higher is better]
_UNREADABLE = "unreadable-"
T = TypeVar("T")
Cost = tuple[float, tuple[str, str | None]]  # (cost, (score's name, scored set)) of a checkpoint


def directory_of(workdir: str | Path, setting: str = "--workdir") -> Path:
    """The folder of the checkpoints of a run."""
    return local_path(workdir, setting).absolute() / "checkpoints"  # Orbax takes absolute paths only


def steps_in(directory: Path) -> list[int]:
    """Steps of the committed checkpoints, ascending."""
    folders = (path.parent.name for path in directory.glob(f"*/{files.COMMITTED}"))
    return sorted(int(name) for name in folders if is_step(name))


def is_step(name: str) -> bool:
    return re.fullmatch("0|[1-9][0-9]*", name) is not None  # not '0100', which a user may have made


def is_ours(name: str) -> bool:
    return is_step(name) or is_folder_of_frozen(name)


def is_remains(name: str) -> bool:
    """Whether a folder is what a killed process left of a save or a deletion. Others, such as 'deleted-by-me', are the
    user's."""
    saved, temporary, _ = name.partition(files.TEMPORARY)
    return is_ours(saved) if temporary else name.startswith(files.DELETED) and is_ours(name[len(files.DELETED) :])


def delete(path: Path) -> None:
    """Deletes a folder under another name: readers find all of it or nothing, also if the process is killed."""
    shutil.rmtree(path.rename(path.with_name(files.DELETED + path.name)), ignore_errors=True)


def best_first(directory: Path) -> dict[tuple, list[int]]:
    """(score's name, scored set) → steps of the checkpoints with a finite value of that score, best first.

    Among equal scores, the later step comes first. Keys are in the order in which their scores were last measured.
    Checkpoints that cannot be read are left out; restoring them reports the damage.
    """
    return ranked(costs_of(directory, steps_in(directory)))


def ranked(costs: Mapping[int, Cost | None]) -> dict[tuple, list[int]]:
    """The same from what `costs_of` returns."""
    finite = {step: cost for step, cost in costs.items() if cost is not None and math.isfinite(cost[0])}
    in_turn = dict.fromkeys(finite[step][1] for step in sorted(finite, reverse=True))
    return {
        kind: sorted((step for step in finite if finite[step][1] == kind), key=lambda s: (finite[s][0], -s))
        for kind in reversed(in_turn)
    }


def costs_of(directory: Path, steps: Iterable[int]) -> dict[int, Cost | None]:
    """Step → what `cost_of` returns; None if the checkpoint cannot be read, perhaps only at this moment."""
    found: dict[int, Cost | None] = {}
    for step in steps:
        try:
            found[step] = cost_of(directory / str(step))
        except CheckpointError:
            found[step] = None
    return found


@functools.cache  # a checkpoint does not change, and a run may have hundreds; errors are not kept
def cost_of(path: Path) -> Cost:
    """The cost is lower for a better score, and NaN without one.

    Raises:
      CheckpointError: the checkpoint cannot be read.
    """
    metadata = files.read_metadata(path)
    name, higher_is_better = metadata.get(JUDGED_BY, (LOSS.name, LOSS.higher_is_better))
    score = metadata["metrics"].get(name, math.nan)
    return -score if higher_is_better else score, (name, metadata["metrics"].get(SET))


def choose_steps(
    directory: Path, which: str | int, setting: str = "--workdir", steps: list[int] | None = None
) -> list[int]:
    """The steps to try, in order. steps: the available steps, if known."""
    steps = steps_in(directory) if steps is None else steps
    if not steps:
        problem = "it has none" if directory.parent.is_dir() else "it does not exist"
        given = setting_text(setting, directory.parent)
        raise ConfigError(f"{given}: must be the folder of a run with a checkpoint; {problem}")
    if which == "latest":
        return steps[::-1]
    available = f"available steps: {', '.join(map(str, steps))} in {directory}"
    if which == "best":
        scored = list(best_first(directory).values())
        if not scored:
            raise ConfigError(f"--checkpoint=best: no checkpoint was saved with a validation score; {available}")
        *others, newest = scored
        if others:
            elsewhere = ", ".join(str(step) for steps in others for step in sorted(steps))
            logging.warning(
                "the best checkpoint is chosen among those that have the same score on the same validation windows "
                "as the newest; steps %s are not compared",
                elsewhere,
            )
        return newest[:1]
    if str(which) not in map(str, steps):
        raise ConfigError(f"--checkpoint={which}: must be latest, best or a step; {available}")
    return [int(which)]


def first_readable(directory: Path, steps: Iterable[int], read: Callable[[Path], T]) -> tuple[T, list[Path]]:
    """The result of `read` for the first readable one of `steps`, and the paths of the unreadable ones before it."""
    unreadable: dict[Path, CheckpointError] = {}
    for step in steps:
        path = directory / str(step)
        try:
            return read(path), list(unreadable)
        except CheckpointError as error:
            logging.warning("CANNOT READ A CHECKPOINT: %s", error)
            unreadable[path] = error
    raise CheckpointError("no readable checkpoint: " + "; ".join(map(str, unreadable.values())))


def newest_readable(directory: Path, choose: Callable[[], list[int]], read: Callable[[Path], T]) -> T:
    """The result of `read` for the first readable one of the chosen steps.

    A run that is training deletes old checkpoints, perhaps those that are just read: `choose` is then called again.

    Raises:
      CheckpointError: none can be read, and there are no others.
    """
    steps, tried = choose(), set[int]()
    while True:
        try:
            return first_readable(directory, steps, read)[0]
        except CheckpointError:
            tried |= set(steps)
            steps = [step for step in choose() if step not in tried]
            if not steps:
                raise


def set_aside(path: Path) -> None:
    """Renames an unreadable checkpoint, so that it can be inspected and the run can save its step again."""
    aside = path.with_name(_UNREADABLE + path.name)
    shutil.rmtree(aside, ignore_errors=True)
    logging.warning("the unreadable checkpoint was renamed to %s", path.rename(aside))
