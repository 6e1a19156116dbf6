"""Locks a folder so that one process at a time works in it, removes useless folders, and finds the cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging

from gptjax.errors import ConfigError, setting_text

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(folder: Path, option: str) -> Iterator[None]:
    """Locks a folder in the block; creates it if needed.

    Args:
      option: the flag or field that names the folder, for messages.

    Raises:
      ConfigError: another process holds the lock, or the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{setting_text(option, folder)}: must be a folder, there is a file of that name") from None
    except OSError as error:
        raise ConfigError(f"{setting_text(option, folder)}: cannot be made ({error.strerror})") from None
    try:
        file = open(folder / LOCK, "a")  # "a" rather than "w": if the name is a link, its target is not emptied
    except OSError as error:
        raise ConfigError(f"{setting_text(option, folder)}: cannot be written to ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{setting_text(option, folder)}: another process is using this folder") from None
        except OSError as error:
            logging.warning(
                "%s: this file system has no locks (%s); make sure that no second process uses the folder",
                setting_text(option, folder),
                error.strerror,
            )
        yield


@contextlib.contextmanager
def in_turn(lock: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Lets one process at a time into the block; others wait. Where the file `lock` cannot be locked, nobody waits.

    waiting: called if this process has to wait.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(lock, "a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def removed_if_useless(folder: Path, is_of_use: Callable[[Path], bool]) -> Iterator[None]:
    """If the block fails, removes the folder and its parents, as far as the block created them.

    The folder stays if another process is working in it, or if `is_of_use(folder)` is true.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the original error is the one to report
            if folder in missing and folder.is_dir() and not is_held(folder) and not is_of_use(folder):
                shutil.rmtree(folder)
                for path in missing[1:]:
                    path.rmdir()  # fails if anything else is in it
        raise


def cache_folder() -> Path:
    """The folder for files that can be made again, kept between runs; only the user should be able to write there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptjax"


def state_folder() -> Path:
    """The folder for files that grow over many runs and cannot be made again, but whose loss does no harm."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gptjax"


def is_held(folder: Path) -> bool:
    """Whether a process is working in the folder, on this or any machine whose locks are visible here."""
    try:
        with open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file yet, or a file system without locks
        return False
    return False
