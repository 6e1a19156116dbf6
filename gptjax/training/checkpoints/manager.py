"""Checkpoints of a run: saved in the background, either complete or absent, and restorable on any mesh.

`workdir/checkpoints/<step>/` is one checkpoint. Orbax writes it into a temporary folder, which it renames when it is
complete. This module decides which checkpoints to keep, and renames a checkpoint before deleting it. Orbax's own
manager deletes in place, so a kill would leave half a checkpoint under the name of a complete one.
"""

from __future__ import annotations

import concurrent.futures
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils

from gptjax.config import ConfigError
from gptjax.evaluation.scores import Score
from gptjax.files.paths import run_folder
from gptjax.parallel.distributed import of_process_0
from gptjax.training.checkpoints import folder as folders
from gptjax.training.checkpoints import format as files
from gptjax.training.checkpoints.format import CheckpointError
from gptjax.training.checkpoints.frozen_parameters import PREFIX, Frozen, is_folder_of_frozen, split
from gptjax.training.checkpoints.saved_together import SaveFailedElsewhere
from gptjax.training.checkpoints.snapshot import Snapshots
from gptjax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run. All processes that train it must make the same calls.

    It keeps the latest `keep_latest`, the best `keep_best` by each score on each set of windows, and every step that is
    a multiple of `keep_every`. Different scores, or scores on different sets, are never compared. A checkpoint whose
    score cannot be read stays, since it may be the best. Opening removes the remains of interrupted saves and
    deletions.

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
        self.directory = folders.directory_of(run_folder(workdir, "--workdir"))
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
                if folders.is_remains(path.name):
                    shutil.rmtree(path, ignore_errors=True)
                elif folders.is_ours(path.name) and not (path / files.COMMITTED).exists():
                    folders.set_aside(path)  # a partly copied folder; as long as it exists, the run cannot save it
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
        return folders.steps_in(self.directory)

    def latest_step(self) -> int | None:
        return max(self.all_steps(), default=None)

    def best(self, score: Score, windows: str | None) -> tuple[int, float] | None:
        """(step, value) of the checkpoint with the best score on this set; None if no checkpoint has the score."""
        steps = folders.best_first(self.directory).get((score.name, windows))
        if not steps:
            return None
        cost, _ = folders.cost_of(self.directory / str(steps[0]))  # not read again
        return steps[0], -cost if score.higher_is_better else cost

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
                folders.set_aside(path)  # it was put there while the run trains
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

        return folders.first_readable(self.directory, steps, read)[0] if steps else None

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
        steps = folders.choose_steps(
            self.directory, "latest" if step is None else step, steps=of_process_0(self.all_steps())
        )
        (state, metadata), unreadable = folders.first_readable(
            self.directory, steps, lambda path: files.read_state(path, abstract_state)
        )
        if jax.process_index() == 0:
            for path in unreadable:
                folders.set_aside(path)
        folders.cost_of.cache_clear()
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
            steps = self.all_steps()
            for old in set(steps) - self._kept(steps):
                folders.delete(self.directory / str(old))
            for unused in self._unused_frozen():
                folders.delete(unused)
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

    def _kept(self, steps: list[int]) -> set[int]:
        forever = [step for step in steps if self._keep_every and step % self._keep_every == 0]
        costs = folders.costs_of(self.directory, steps if self._keep_best else [])
        best = [step for same in folders.ranked(costs).values() for step in same[: self._keep_best]]
        unread = [step for step, cost in costs.items() if cost is None]
        return {*steps[-self._keep_latest :], *best, *unread, *forever}

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


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
