"""Arrays that are computed once per split, kept in the user's cache folder, and read as memory maps.

The folder of an index is named by the hash of everything that it depends on. It is not in the prepared folder, which
never changes after it has been made. An index is computed again if one of its files is missing or has another size than
it had: programs that tidy up such folders delete single old files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash

from gptjax.config import ConfigError
from gptjax.files import write_aside
from gptjax.files.folders import cache_folder

_SIZES = "sizes.json"  # name of an array → size of its file in bytes


class StoredIndex:
    """Named arrays in the cache folder. Pickling keeps only their path.

    Args:
      made_from: everything on which the arrays depend.
      dtypes: name of an array → its type.
      write: writes all arrays to the opened files if the index does not exist.
      what: the field that needs the index, for messages.

    Raises:
      ConfigError: there is no room for the files.
    """

    def __init__(
        self,
        made_from: Any,
        dtypes: Mapping[str, np.dtype],
        write: Callable[[Mapping[str, IO[bytes]]], None],
        what: str,
    ):
        self._path = cache_folder() / "packed" / xxhash.xxh3_64_hexdigest(repr(made_from).encode())
        self._dtypes = dict(dtypes)
        if not _is_whole(self._path, dtypes):
            try:
                _make(self._path, dtypes, write)
            except OSError as error:
                raise ConfigError(
                    f"{what}: {self._path}: cannot store what shares a row ({error.strerror}); set XDG_CACHE_HOME to "
                    "another cache folder"
                ) from None

    def __getstate__(self) -> dict:
        return {"_path": self._path, "_dtypes": self._dtypes}

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Memory maps; empty files cannot be mapped and give empty arrays."""
        paths = {name: self._path / f"{name}.bin" for name in self._dtypes}
        return {
            name: np.asarray(np.memmap(path, self._dtypes[name], mode="r"))
            if path.stat().st_size
            else np.empty(0, self._dtypes[name])
            for name, path in paths.items()
        }


def _is_whole(path: Path, names: Iterable[str]) -> bool:
    try:
        sizes = json.loads((path / _SIZES).read_bytes())
        return all((path / f"{name}.bin").stat().st_size == sizes[name] for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(path: Path, dtypes: Mapping[str, np.dtype], write: Callable[[Mapping[str, IO[bytes]]], None]) -> None:
    """Writes the index to a temporary folder and renames it; another process may have been faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        with contextlib.ExitStack() as files:
            opened = {name: files.enter_context(open(beside / f"{name}.bin", "wb")) for name in dtypes}
            write(opened)
            for file in opened.values():
                file.flush()
                os.fsync(file.fileno())
            sizes = {name: file.tell() for name, file in opened.items()}
        with write_aside(beside / _SIZES) as noted:
            noted.write(json.dumps(sizes).encode())
        if not _is_whole(path, dtypes):
            shutil.rmtree(path, ignore_errors=True)  # it lacks files
        try:
            beside.rename(path)
        except OSError:
            if not _is_whole(path, dtypes):
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
