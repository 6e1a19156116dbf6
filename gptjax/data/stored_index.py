"""Arrays that are computed once per split, kept in the user's cache folder, and read as memory maps.

The folder of an index is named by the hash of everything that it depends on. It is not in the prepared folder, which
never changes after it has been made. Deleted files are computed again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash

from gptjax.config import ConfigError
from gptjax.files.folders import cache_folder


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
        if not self._path.is_dir():
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
        try:
            beside.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
