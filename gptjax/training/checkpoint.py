"""Checkpoints of a run: saved in the background, either complete or absent, and restorable on any mesh.

`workdir/checkpoints/<step>/` is one checkpoint. Orbax writes it into a temporary folder, which it renames when it is
complete. This module decides which checkpoints to keep, and renames a checkpoint before deleting it. Orbax's own
manager deletes in place, so a kill would leave half a checkpoint under the name of a complete one.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import jax
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gptjax.config import ConfigError, from_json, get
from gptjax.config.user_code import is_named
from gptjax.errors import setting_text
from gptjax.evaluation.scores import LOSS, SET
from gptjax.files.paths import CONFIG, existing_run, local_path, run_folder
from gptjax.model.families import family_of, merged_model
from gptjax.model.parameters import abstract_params
from gptjax.parallel.distributed import of_process_0
from gptjax.parallel.sharding import placed_params
from gptjax.settings import Settings
from gptjax.training import checkpoint_format as files
from gptjax.training.checkpoint_format import CheckpointError
from gptjax.training.frozen_parameters import PREFIX, Frozen, is_folder_of_frozen, split
from gptjax.training.run_metadata import MODEL_MAY_BE_OWN, check_same_model
from gptjax.training.saved_together import SaveFailedElsewhere
from gptjax.training.snapshot import Snapshots
from gptjax.training.state import TrainState

JUDGED_BY = "judged_by"  # metadata key: [name of the score that selects the best checkpoint, whether higher is better]
_UNREADABLE = "unreadable-"

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run. All processes that train it must make the same calls.

    It keeps the latest `keep_latest`, the best `keep_best` by each score on each set of windows, and every step that is
    a multiple of `keep_every`. Different scores, or scores on different sets, are never compared. Opening removes the
    remains of interrupted saves and deletions.

    Args:
      workdir: the run's folder, seen by all processes.
      config_checkpoint: the config's `checkpoint` section.
      steps_of: turns a duration ("10000 steps") into a number of steps.
      frozen: paths of the parameters that no step changes. They are written once, and all checkpoints share them.
    """

    def __init__(
        self, workdir: str | Path, config_checkpoint: Any, steps_of: Callable[[str], int], frozen: Iterable[str] = ()
    ):
        if config_checkpoint.keep_latest < 1:
            raise ConfigError(f"checkpoint.keep_latest = {config_checkpoint.keep_latest}: must be at least 1")
        self.directory = _directory(run_folder(workdir, "--workdir"))
        self._keep_latest = config_checkpoint.keep_latest
        self._keep_best = config_checkpoint.keep_best
        self._keep_every = steps_of(config_checkpoint.keep_every) if config_checkpoint.keep_every else 0
        self._frozen_paths = frozenset(frozen)
        self._frozen: Frozen | None = None  # these parameters, once they have been read
        self._sound: str | None = None  # the folder of frozen parameters that this process has read or written
        self._snapshots = Snapshots()
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint writer")
        self._saving: tuple[int, concurrent.futures.Future] | None = None
        self._failure: CheckpointError | None = None
        self._failed_steps: list[int] = []  # whose remains are still there
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            for path in self.directory.iterdir():
                if _is_remains(path.name):
                    shutil.rmtree(path, ignore_errors=True)
                elif _is_ours(path.name) and not (path / files.COMMITTED).exists():
                    _set_aside(path)  # a partly copied folder; as long as it exists, the run cannot save it
        _barrier("checkpoints opened")
        try:
            tempfile.TemporaryFile(dir=self.directory).close()
        except OSError as error:  # rather than at the first save
            raise ConfigError(f"{self.directory}: cannot be written to ({error.strerror})") from None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # the caller's error is more important; a failed save is logged
            self._wait_for_save()

    def all_steps(self) -> list[int]:
        """The steps of the complete checkpoints, ascending."""
        return _steps(self.directory)

    def latest_step(self) -> int | None:
        return max(self.all_steps(), default=None)

    def best(self, score: str, windows: str | None) -> tuple[int, float] | None:
        """(step, value) of the checkpoint with the best score on this set; None if no checkpoint has the score."""
        steps = _best_first(self.directory).get((score, windows), [])
        return (steps[0], files.read_metadata(self.directory / str(steps[0]))["metrics"][score]) if steps else None

    def save(self, step: int, state: TrainState, metadata: Mapping, metrics: Mapping | None = None) -> float:
        """Waits for the previous save, then starts to save `state`. A step that is already saved is not saved again.

        The arrays may be donated as soon as this returns. A save that fails, now or later in the background (a full
        disk), is logged as an error and its remains are removed. Earlier checkpoints stay, and training can continue.
        `wait` raises the error.

        Args:
          metadata: JSON values, as `run_metadata` makes them. Its JUDGED_BY names the score that decides which
            checkpoint is the best; the default is the validation loss.
          metrics: the checkpoint can be the best only if these contain that score, measured at this step on
            `validation/set`.

        Returns:
          The seconds for which training was blocked.
        """
        started = time.perf_counter()
        self._wait_for_save()
        path = self.directory / str(step)
        exists = of_process_0((path / files.COMMITTED).exists())
        self._remove_remains()
        if not exists:
            if jax.process_index() == 0 and path.exists():
                _set_aside(path)  # it was put there while the run trains
            scores = {name: v if isinstance(v, str) else float(v) for name, v in (metrics or {}).items()}
            try:
                write = self._start_write(path, state, {**metadata, "step": step, "metrics": scores})
            except (OSError, SaveFailedElsewhere, CheckpointError) as error:
                self._fail(step, error)
            else:
                self._saving = step, self._writer.submit(self._finish, write)
        return time.perf_counter() - started

    def wait(self) -> None:
        """Waits until all saves are on disk and unneeded checkpoints are deleted.

        Raises:
          CheckpointError: the last save failed.
        """
        self._wait_for_save()
        _barrier("saved")
        self._remove_remains()
        if self._failure is not None:
            raise self._failure

    close = wait

    def metadata(self) -> dict | None:
        """The metadata of the newest checkpoint that all processes can read, or None. Callers check it before they
        compile."""
        steps = of_process_0(self.all_steps()[::-1])

        def read(path: Path) -> dict:
            return files.agreed(path, lambda: files.read_metadata(path), together=jax.process_count() > 1)

        return _first_readable(self.directory, steps, read)[0] if steps else None

    def restore(self, abstract_state: TrainState, step: int | None = None) -> tuple[TrainState, dict]:
        """Reads the newest state, or that of `step`, onto the devices of `abstract_state`.

        If the newest checkpoint is unreadable or damaged, warns and tries the one before it, and so on. Unreadable ones
        are renamed to `unreadable-<step>`, since the run will save that step again.

        Args:
          abstract_state: `jax.ShapeDtypeStruct` leaves with shardings, on any mesh of any number of processes.

        Returns:
          The state and the checkpoint's metadata.

        Raises:
          ConfigError: there is no such checkpoint, or its arrays differ from `abstract_state`.
          CheckpointError: no checkpoint can be read.
        """
        steps = _choose(self.directory, "latest" if step is None else step, steps=of_process_0(self.all_steps()))
        (state, metadata), unreadable = _first_readable(
            self.directory, steps, lambda path: files.read_state(path, abstract_state)
        )
        if jax.process_index() == 0:
            for path in unreadable:
                _set_aside(path)
        _cost.cache_clear()
        self._sound = metadata["frozen"]["folder"] if "frozen" in metadata else None
        _barrier("checkpoint restored")
        return state, metadata

    def _start_write(self, path: Path, state: TrainState, metadata: Mapping) -> Callable[[], None]:
        """Starts the save. Returns a function that finishes it, which another thread calls; `state` may be donated."""
        shared = None
        if self._frozen_paths:
            state, still = split(state, self._frozen_paths)
            self._frozen = shared = self._frozen or files.describe_frozen(still)
            files.save_frozen(self.directory, shared, still, is_sound=self._sound == shared.folder)
            self._sound = shared.folder
        snapshot = self._snapshots.take(state)
        if snapshot is None:  # then Orbax copies to the host before it returns
            return files.start_save(path, state, metadata, None, shared).result
        # Programs on several devices, such as sums over shards and the next step, must be started by the same thread.
        sums = files.start_checksums(snapshot) if jax.device_count() > 1 else None
        return lambda: files.start_save(path, snapshot, metadata, sums, shared).result()

    def _wait_for_save(self) -> None:
        """Waits for the save in progress, if there is one."""
        if self._saving is None:
            return
        (step, saving), self._saving = self._saving, None
        try:
            saving.result()
        except Exception as error:
            self._fail(step, error)
        else:
            self._failure = None

    def _finish(self, write: Callable[[], None]) -> None:
        """Writes the checkpoint, then deletes unneeded ones."""
        write()
        if jax.process_index() != 0:
            return
        try:
            for old in set(self.all_steps()) - self._kept():
                _delete(self.directory / str(old))
            for unused in self._unused_frozen():
                _delete(unused)
        except OSError as error:
            logging.error("cannot delete old checkpoints in %s: %s", self.directory, error)

    def _unused_frozen(self) -> list[Path]:
        """Folders of frozen parameters that no checkpoint shares, which a run leaves whose frozen parameters change."""
        found = [path for path in self.directory.iterdir() if is_folder_of_frozen(path.name)]
        if all(path.name == self._sound for path in found):  # no metadata need to be read
            return []
        try:
            of_checkpoints = [files.read_metadata(self.directory / str(step)) for step in self.all_steps()]
        except (CheckpointError, ConfigError):
            return []  # it may share any of them
        used = {metadata["frozen"]["folder"] for metadata in of_checkpoints if "frozen" in metadata}
        return [path for path in found if path.name not in used | {self._sound}]

    def _kept(self) -> set[int]:
        steps = self.all_steps()
        forever = [step for step in steps if self._keep_every and step % self._keep_every == 0]
        best = [step for same in _best_first(self.directory).values() for step in same[: self._keep_best]]
        return {*steps[-self._keep_latest :], *best, *forever}

    def _fail(self, step: int, error: Exception) -> None:
        newest = self.latest_step()
        self._failure = CheckpointError(
            f"the checkpoint of step {step} was not saved: {files.reason(error)}; "
            + ("there is no earlier checkpoint" if newest is None else f"the newest is that of step {newest}")
        )
        self._failure.__cause__ = error
        logging.error("%s", self._failure)
        self._failed_steps.append(step)
        if jax.process_count() == 1:
            self._remove_remains()

    def _remove_remains(self) -> None:
        """Removes what failed saves have written, which would keep a full disk full. No process may be writing it."""
        while self._failed_steps:
            step = self._failed_steps.pop()
            if jax.process_index() == 0:
                for name in (f"{step}{files.TEMPORARY}*", f"{PREFIX}*{files.TEMPORARY}*"):
                    for path in self.directory.glob(name):
                        shutil.rmtree(path, ignore_errors=True)


def load_params(
    workdir: str | Path,
    which: str | int = "latest",
    like: Any = None,
    ema: bool | None = False,
    check: Callable[[dict], Any] = lambda metadata: None,
    setting: str = "--workdir",
) -> tuple[dict, dict]:
    """Reads only the parameters of a run.

    Args:
      which: "latest" (the newest that can be read), "best" (the best score on the windows that were scored last), or a
        step.
      like: tree of `jax.ShapeDtypeStruct` with shardings that the parameters must fit; None: as saved, on one device.
      ema: True reads their moving average instead; None does so if there is one.
      check: is called with the metadata before the arrays are read; may raise ConfigError.
      setting: the flag or field that named the folder, for messages.

    Returns:
      The parameter tree, and the checkpoint's metadata: `step` and the values of `run_metadata`.

    Raises:
      ConfigError: there is no such workdir, checkpoint (lists the available ones) or average, or a shape differs.
      CheckpointError: no checkpoint can be read.
    """
    directory = _directory(workdir, setting)

    def choose() -> list[int]:
        steps = _choose(directory, which, setting)
        # The other run may save a checkpoint meanwhile, which only some processes would see.
        return of_process_0(steps) if files.is_shared(like) else steps

    return _newest_readable(directory, choose, lambda path: files.read_params(path, ema, like, check))


def load_for_inference(
    workdir: str | Path,
    which: str | int = "latest",
    ema: bool | None = None,
    own_functions: bool = False,
    mesh: Mesh | None = None,
) -> tuple[dict, Settings, dict]:
    """Reads what a model needs to run: parameters on one device, the run's config, the checkpoint's metadata.

    Adapters are merged, and the config is then that of a model without adapters.

    mesh: the parameters are split over its devices instead.
    own_functions: whether the model may import what config.json names as 'module:function'. A run that somebody else
    made can bring the module with it, and importing a module runs it.

    Raises what `load_params` raises, and ConfigError if config.json cannot be read, names such a function without
    permission, or describes a model other than the trained one: an edited config may fit the arrays and compute
    nonsense.
    """
    config = saved_config(workdir)
    for field in MODEL_MAY_BE_OWN:
        if is_named(name := get(config, field)) and not own_functions:
            raise ConfigError(
                f"{local_path(workdir, '--workdir') / CONFIG}: {field} = {name!r} names a function or class, and "
                "importing it runs its module; give --own_functions if you trust it"
            )
    check = functools.partial(check_same_model, config=config, source=str(local_path(workdir, "--workdir") / CONFIG))
    like = None
    if mesh is not None:
        like = placed_params(mesh, family_of(config.model).declarations)
    elif config.model.lora_rank:  # 8-bit weights are not plain arrays
        like = files.on_one_device(abstract_params(family_of(config.model).declarations))
    params, metadata = load_params(workdir, which, like, ema, check)
    params, model = merged_model(config.model, params)
    return params, dataclasses.replace(config, model=model), metadata


def saved_config(workdir: str | Path, setting: str = "--workdir") -> Settings:
    """The config of a run. setting: see `load_params`.

    Raises:
      ConfigError: there is no run, or its config.json cannot be read.
    """
    path = existing_run(workdir, setting) / CONFIG
    try:
        return from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def saved_metadata(workdir: str | Path, setting: str = "--workdir", which: str | int = "latest") -> dict | None:
    """The metadata of a run's newest readable checkpoint, or of step `which`; None if there is no checkpoint yet.
    setting: see `load_params`."""
    directory = _directory(workdir, setting)
    if not _steps(directory):
        return None
    return _newest_readable(directory, lambda: _choose(directory, which, setting), files.read_metadata)


def saved_steps(workdir: str | Path, setting: str = "--workdir") -> list[int]:
    """The steps of a run's complete checkpoints, ascending. Only reads, so it is safe while the run is training."""
    return _steps(_directory(workdir, setting))


def _directory(workdir: str | Path, setting: str = "--workdir") -> Path:
    return local_path(workdir, setting).absolute() / "checkpoints"  # Orbax takes absolute paths only


def _steps(directory: Path) -> list[int]:
    """Steps of the committed checkpoints, ascending."""
    folders = (path.parent.name for path in directory.glob(f"*/{files.COMMITTED}"))
    return sorted(int(name) for name in folders if _is_step(name))


def _is_step(name: str) -> bool:
    return re.fullmatch("0|[1-9][0-9]*", name) is not None  # not '0100', which a user may have made


def _is_ours(name: str) -> bool:
    return _is_step(name) or is_folder_of_frozen(name)


def _is_remains(name: str) -> bool:
    """Whether a folder is what a killed process left of a save or a deletion. Others, such as 'deleted-by-me', are the
    user's."""
    saved, temporary, _ = name.partition(files.TEMPORARY)
    return _is_ours(saved) if temporary else name.startswith(files.DELETED) and _is_ours(name[len(files.DELETED) :])


def _delete(path: Path) -> None:
    """Deletes a folder under another name: readers find all of it or nothing, also if the process is killed."""
    shutil.rmtree(path.rename(path.with_name(files.DELETED + path.name)), ignore_errors=True)


def _best_first(directory: Path) -> dict[tuple, list[int]]:
    """(score's name, scored set) → steps of the checkpoints with a finite value of that score, best first.

    Among equal scores, the later step comes first. Keys are in the order in which their scores were last measured.
    """
    costs = {step: cost for step in _steps(directory) if math.isfinite((cost := _cost(directory / str(step)))[0])}
    in_turn = dict.fromkeys(costs[step][1] for step in sorted(costs, reverse=True))
    return {
        kind: sorted((step for step in costs if costs[step][1] == kind), key=lambda s: (costs[s][0], -s))
        for kind in reversed(in_turn)
    }


@functools.cache  # a checkpoint does not change, and a run may have hundreds
def _cost(path: Path) -> tuple[float, tuple[str, str | None]]:
    """Returns (cost, (score's name, scored set)). The cost is lower for a better score, and NaN without one."""
    try:
        metadata = files.read_metadata(path)
    except CheckpointError:
        return math.nan, (LOSS.name, None)  # restoring it reports the damage
    name, higher_is_better = metadata.get(JUDGED_BY, (LOSS.name, LOSS.higher_is_better))
    score = metadata["metrics"].get(name, math.nan)
    return -score if higher_is_better else score, (name, metadata["metrics"].get(SET))


def _choose(directory: Path, which: str | int, setting: str = "--workdir", steps: list[int] | None = None) -> list[int]:
    """The steps to try, in order. steps: the available steps, if known."""
    steps = _steps(directory) if steps is None else steps
    if not steps:
        problem = "it has none" if directory.parent.is_dir() else "it does not exist"
        given = setting_text(setting, directory.parent)
        raise ConfigError(f"{given}: must be the folder of a run with a checkpoint; {problem}")
    if which == "latest":
        return steps[::-1]
    available = f"available steps: {', '.join(map(str, steps))} in {directory}"
    if which == "best":
        scored = list(_best_first(directory).values())
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


def _first_readable(directory: Path, steps: Iterable[int], read: Callable[[Path], T]) -> tuple[T, list[Path]]:
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


def _newest_readable(directory: Path, choose: Callable[[], list[int]], read: Callable[[Path], T]) -> T:
    """The result of `read` for the first readable one of the chosen steps.

    A run that is training deletes old checkpoints, perhaps those that are just read: `choose` is then called again.

    Raises:
      CheckpointError: none can be read, and there are no others.
    """
    steps, tried = choose(), set[int]()
    while True:
        try:
            return _first_readable(directory, steps, read)[0]
        except CheckpointError:
            tried |= set(steps)
            steps = [step for step in choose() if step not in tried]
            if not steps:
                raise


def _set_aside(path: Path) -> None:
    """Renames an unreadable checkpoint, so that it can be inspected and the run can save its step again."""
    aside = path.with_name(_UNREADABLE + path.name)
    shutil.rmtree(aside, ignore_errors=True)
    logging.warning("the unreadable checkpoint was renamed to %s", path.rename(aside))


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
