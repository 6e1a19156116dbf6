"""Files that must not change after they have been checked, as long as a run reads them.

They are read with `pread` and not through a memory map: a truncated file or a failing disk then raises an error in
Python, whereas a memory map would end the process by SIGBUS.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gptjax.config import RunError

MOST_OPEN = 128  # open files per split and process
CHECK_EVERY = 1.0  # seconds between two checks of a file's size and time: network disks answer slowly


class FileState(NamedTuple):
    """Properties of a file that change when it is overwritten or replaced."""

    size: int
    modified_ns: int
    inode: int


def file_state(path: Path) -> FileState:
    """The current state of a file. Raises OSError if there is no such file."""
    status = os.stat(path)
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)


class WatchedFiles:
    """Files of a folder. Their state is recorded on creation and compared at every read. Pickling leaves out open
    files."""

    def __init__(self, folder: Path, names: Iterable[str]):
        """Raises OSError if a file is missing."""
        self._folder = folder
        self._recorded = {name: file_state(folder / name) for name in names}
        self._open: OrderedDict[str, tuple[int, float]] = OrderedDict()  # name → (descriptor, time of the last check)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for descriptor, _ in self.__dict__.get("_open", {}).values():
            os.close(descriptor)

    def size_of(self, name: str) -> int:
        """The size of the file in bytes when it was opened."""
        return self._recorded[name].size

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` with the file's bytes from `offset` on.

        Raises:
          RunError: the file has changed, or cannot be read.
        """
        try:
            descriptor = self._descriptor(name)
            while len(buffer):
                count = os.preadv(descriptor, [buffer], offset)
                if not count:
                    raise self._changed(name)
                offset, buffer = offset + count, buffer[count:]
        except FileNotFoundError:
            raise self._changed(name) from None
        except OSError as error:
            raise RunError(f"{self._folder / name}: cannot be read any more ({error.strerror})") from None

    def _descriptor(self, name: str) -> int:
        """The file's descriptor. Checks the file if the last check is too old."""
        now = time.monotonic()
        descriptor, checked = self._open.get(name, (None, 0.0))
        if descriptor is None or now - checked >= CHECK_EVERY:
            if file_state(self._folder / name) != self._recorded[name]:
                raise self._changed(name)
            if descriptor is None:
                descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
            self._open[name] = descriptor, now
        self._open.move_to_end(name)
        if len(self._open) > MOST_OPEN:
            _, (oldest, _) = self._open.popitem(last=False)
            os.close(oldest)
        return descriptor

    def _changed(self, name: str) -> RunError:
        path, before = self._folder / name, self._recorded[name]
        try:
            now = file_state(path)
        except FileNotFoundError:
            return RunError(f"{path}: was deleted during the run, which cannot continue without it")
        what = f"had {before.size} bytes, has {now.size}" if before.size != now.size else "has a new modification time"
        return RunError(
            f"{path}: was changed during the run ({what}), which cannot continue with other data. The same command "
            "checks the data again, and resumes from the last checkpoint if the content is still the same"
        )
