"""Writes files and folders atomically: a file is written under a temporary name, flushed to disk and renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import xxhash

from gptjax.errors import ConfigError

SUFFIX = ".tmp"


class AsideFile:
    """A file under a temporary name, which `finish` renames. Its size and hash are computed while it is written."""

    def __init__(self, path: Path):
        self.path = path
        self.size = 0
        self._aside = path.with_name(path.name + SUFFIX)
        self._file = open(self._aside, "wb")
        self._digest = xxhash.xxh3_64()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def abandon(self) -> None:
        """Closes and removes the temporary file."""
        with contextlib.suppress(OSError):  # closing flushes, which fails if the disk is full
            self._file.close()
        self._aside.unlink(missing_ok=True)

    def finish(self) -> dict:
        """Renames the file to its final name and returns its manifest entry: name, size in bytes, hash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._aside, self.path)
        return {"name": self.path.name, "size": self.size, "hash": self._digest.hexdigest()}


@contextlib.contextmanager
def write_aside(path: Path) -> Iterator[AsideFile]:
    """Opens a file to write atomically; if the block raises or the disk is full, `path` stays as it was."""
    file = AsideFile(path)
    try:
        yield file
        file.finish()
    except BaseException:
        file.abandon()
        raise


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Makes a folder under a temporary name beside `path`, which must be new or empty, and renames it at the end.

    If the block raises, the temporary folder is removed; what a killed process left is removed at the next start.

    Raises:
      ConfigError: it is the current folder, which the user's shell would lose.
    """
    if path.resolve() == Path.cwd():
        raise ConfigError(f"{path}: is the current folder and cannot be replaced: choose another one")
    aside = path.with_name(path.name + SUFFIX)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def append_line(path: Path, line: str) -> None:
    """Appends a line as a whole, also while other processes append to the file, after ending a line that a killed
    process may have left without a newline."""
    with open(path, "ab+", buffering=0) as file:  # in one write, which the system does not mix with others
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(f"{line}\n".encode())
        os.fsync(file.fileno())


def file_hash(path: Path) -> str:
    """Returns the xxh3_64 hash of a file's bytes in hexadecimal."""
    digest = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def file_entry(path: Path) -> dict:
    """The manifest entry of a finished file."""
    return {"name": path.name, "size": path.stat().st_size, "hash": file_hash(path)}
