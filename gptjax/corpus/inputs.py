"""Which files a corpus is made of: folders walked in sorted order, files as given, the standard library's source."""

from __future__ import annotations

import os
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptjax.config import ConfigError

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".jsonl.gz", ".parquet")
STANDARD_LIBRARY = "python-stdlib"
# Tests are most of the library's bytes and little of its prose; the rest is not the library's.
STANDARD_LIBRARY_LEAVES_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class InputFile:
    path: Path
    source: str  # the name that messages use
    size: int  # bytes


def find_files(inputs: Sequence[str]) -> tuple[list[InputFile], Counter[str]]:
    """The files behind `inputs`, each once, sorted by name within a folder; and what was passed over, by reason.

    Folders are walked through symbolic links; hidden names and other suffixes are not looked at. An input may be a
    folder, a file, or 'python-stdlib' for the source of the Python that runs this (without its tests).

    Raises:
      ConfigError: an input does not exist, is a file of another kind, or nothing is found at all.
    """
    skipped: Counter[str] = Counter()
    files: dict[str, InputFile] = {}  # by real path
    for name in inputs:
        for path, source in _candidates(name, skipped):
            real = os.path.realpath(path)
            if real in files:
                skipped["file named twice"] += 1
                continue
            files[real] = InputFile(path, source, path.stat().st_size)
    if not files:
        seen = f" (passed over: {dict(skipped)})" if skipped else ""
        raise ConfigError(f"input = {','.join(inputs)!r}: no file that ends in {' '.join(SUFFIXES)}{seen}")
    return list(files.values()), skipped


def _candidates(name: str, skipped: Counter[str]) -> Iterator[tuple[Path, str]]:
    if name == STANDARD_LIBRARY:
        root = Path(sysconfig.get_path("stdlib"))
        for path in _walk(root, skipped, leave_out=STANDARD_LIBRARY_LEAVES_OUT):
            if path.suffix == ".py":
                yield path, f"{STANDARD_LIBRARY}/{path.relative_to(root).as_posix()}"
    elif os.path.isdir(name):
        for path in _walk(Path(name), skipped):
            if path.name.lower().endswith(SUFFIXES):
                yield path, path.as_posix()
    elif os.path.isfile(name):
        if not name.lower().endswith(SUFFIXES):
            raise ConfigError(f"input = {name!r}: a file must end in one of {' '.join(SUFFIXES)}")
        yield Path(name), name
    else:
        raise ConfigError(f"input = {name!r}: no such file or folder (or {STANDARD_LIBRARY!r} for Python's own source)")


def _walk(
    folder: Path, skipped: Counter[str], leave_out: set[str] = frozenset(), above: tuple[str, ...] = ()
) -> Iterator[Path]:
    """The files below `folder` in sorted order; a folder inside itself, by way of a link, is passed over."""
    above = (*above, os.path.realpath(folder))
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        skipped[f"unreadable ({type(error).__name__})"] += 1
        return
    for path in entries:
        if path.name.startswith(".") or path.name in leave_out:
            continue
        if path.is_dir():
            if os.path.realpath(path) in above:
                skipped["symbolic link loop"] += 1
            else:
                yield from _walk(path, skipped, leave_out, above)
        elif path.is_file():
            yield path
        elif path.is_symlink():
            skipped["broken symbolic link"] += 1
