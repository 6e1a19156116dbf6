"""Faults inside one process of a run that no signal from outside can cause.

The config of killed_runs.py imports this module, and a variable of the process's environment chooses the faults:
INJECTED_FAULTS='nan 7', or several, separated by commas.
"""

import errno
import os
import resource
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint.experimental.v1._src.metadata import serialization

from gptjax.data import Dataset
from gptjax.training.checkpoints import folder as checkpoint_folder
from gptjax.training.checkpoints import format as checkpoint_format


def nan(step: str) -> None:
    """At this step (from 1), one of the weights in this process's rows of the batch is NaN."""
    batch = Dataset.batch

    def bad_batch(self: Dataset, number: int, rows: np.ndarray) -> dict:
        made = batch(self, number, rows)
        if number == int(step) - 1:
            made["weights"][0, 3] = np.nan
        return made

    Dataset.batch = bad_batch


def flipped(step: str) -> None:
    """This process reads a number of this checkpoint differently from the others, in an array that it reads whole."""
    load = checkpoint_format._load

    def bad_load(path: Path, parts: dict) -> dict:
        loaded = load(path, parts)
        if path.name == step:
            right = loaded["optimizer"]["step"]
            wrong = np.asarray(right.addressable_shards[0].data) + 1
            loaded["optimizer"]["step"] = jax.make_array_from_callback((), right.sharding, lambda _: wrong)
        return loaded

    checkpoint_format._load = bad_load


def unseen(step: str) -> None:
    """This process does not see this checkpoint, as on a slow network file system."""
    steps, read_metadata = checkpoint_folder.steps_in, checkpoint_format.read_metadata

    def read_seen_metadata(path: Path) -> dict:
        if path.name == step:
            raise checkpoint_format.CheckpointError(f"checkpoint {path} is not there")
        return read_metadata(path)

    checkpoint_folder.steps_in = lambda folder: [number for number in steps(folder) if number != int(step)]
    checkpoint_format.read_metadata = read_seen_metadata


def unwritable(step: str) -> None:
    """The disk is full while this process writes its part of this checkpoint."""
    start_save = checkpoint_format.start_save

    def bad_start(path: Path, *args: object) -> object:
        most = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (0 if path.name == step else most, most))
        return start_save(path, *args)

    checkpoint_format.start_save = bad_start


def unfinished(step: str) -> None:
    """The disk takes no more from this process when it comes to the last file of this checkpoint."""
    write = serialization.write

    async def bad_write(path: Path, *args: object) -> None:
        if path.parent.name.startswith(f"{step}."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await write(path, *args)

    serialization.write = bad_write


for fault in filter(None, os.environ.get("INJECTED_FAULTS", "").split(", ")):
    name, argument = fault.split()
    globals()[name](argument)
