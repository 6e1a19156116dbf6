"""Files that appear whole or not at all: written under another name, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

SUFFIX = ".tmp"


class AsideFile:
    """A file that grows aside and takes its own name when `finish` is called; sized and hashed as it grows."""

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
        """Leaves nothing behind: no open file, no part of one."""
        with contextlib.suppress(OSError):  # what is still in memory cannot be written either
            self._file.close()
        self._aside.unlink(missing_ok=True)

    def finish(self) -> dict:
        """Puts the file in its place and returns its manifest entry: name, size in bytes, hash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._aside, self.path)
        return {"name": self.path.name, "size": self.size, "hash": self._digest.hexdigest()}


@contextlib.contextmanager
def write_aside(path: Path) -> Iterator[AsideFile]:
    """A file to write at once; where the block raises, or the disk is full, `path` stays as it was, alone."""
    file = AsideFile(path)
    try:
        yield file
        file.finish()
    except BaseException:
        file.abandon()
        raise


def file_hash(path: Path) -> str:
    """xxh3_64 of a file's bytes, as hexadecimal digits."""
    digest = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def file_entry(path: Path) -> dict:
    """The manifest entry of a finished file."""
    return {"name": path.name, "size": path.stat().st_size, "hash": file_hash(path)}
