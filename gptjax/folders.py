"""Folders: one process at a time works in one, so that none undoes another's work; and where a cache is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging

from gptjax.config import ConfigError

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(folder: Path, option: str) -> Iterator[None]:
    """Holds a folder, made if need be. option: that named it, for messages.

    Raises:
      ConfigError: another process holds it, or it cannot be a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{option} = {folder}: must be a folder, there is a file of that name") from None
    except OSError as error:
        raise ConfigError(f"{option} = {folder}: cannot be made ({error.strerror})") from None
    try:
        file = open(folder / LOCK, "a")  # nothing is emptied, should the name be a link
    except OSError as error:
        raise ConfigError(f"{option} = {folder}: cannot be written to ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{option} = {folder}: another process is using this folder") from None
        except OSError as error:
            logging.warning(
                "%s = %s: this file system has no locks (%s); make sure that no second process uses the folder",
                option,
                folder,
                error.strerror,
            )
        yield


@contextlib.contextmanager
def removed_if_useless(folder: Path, is_of_use: Callable[[Path], bool]) -> Iterator[None]:
    """Where its block fails, removes the folder, and those above it that were not there either, if the block made them.

    A folder in which another process is at work stays, as does one of which `is_of_use` holds.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # what matters is why it failed
            if folder in missing and folder.is_dir() and not is_held(folder) and not is_of_use(folder):
                shutil.rmtree(folder)
                for path in missing[1:]:
                    path.rmdir()  # only if nothing else is in it
        raise


def cache_folder() -> Path:
    """Where what can be made again is kept between runs; only its user should be able to write there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptjax"


def is_held(folder: Path) -> bool:
    """Whether a process is at work in the folder, on any machine whose locks are seen here."""
    try:
        with open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never started, or a file system without locks
        return False
    return False
