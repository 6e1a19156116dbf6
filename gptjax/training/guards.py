"""What surrounds a run: one trainer a folder, and words for a device that is out of memory."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import jax
from ml_collections import FrozenConfigDict

from gptjax.config import ConfigError, RunError

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Holds the run's folder, so that a second trainer cannot delete what the first one is writing.

    Raises:
      ConfigError: another process holds it, or it cannot be a folder.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"--workdir = {workdir}: must be a folder, there is a file of that name") from None
    with open(workdir / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--workdir = {workdir}: another process is training in this folder") from None
        except OSError:  # a file system without locks
            pass
        yield


def is_held(workdir: Path) -> bool:
    """Whether a trainer is at work in the folder, on any machine whose locks are seen here."""
    try:
        with open(workdir / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never started, or a file system without locks
        return False
    return False


@contextlib.contextmanager
def explained_memory(config: FrozenConfigDict) -> Iterator[None]:
    """Turns a device that is out of memory into a sentence that says what would need less."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        training = config.training
        raise RunError(
            f"out of device memory: {str(error).splitlines()[0]}. What needs less: a larger "
            f"training.gradient_accumulation_steps (now {training.gradient_accumulation_steps}), "
            f"training.loss_chunk=8192 (now {training.loss_chunk}), model.remat=dots or full (now "
            f"{config.model.remat}), more devices on mesh.fsdp"
        ) from error
