"""What a road remembers of its stages: a file for each, with a key of the command and of everything that it reads.

A stage's key is a hash of its command, of the Python files that the command names, and of what it reads: the key of the
stage that makes it, or the names, sizes and times of change of files from elsewhere. So a stage is done if its file has
its key and says so, and a change of an early stage changes the keys of all stages that depend on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from gptjax.config import ConfigError
from gptjax.files import file_hash, write_aside
from gptjax.files.json_files import parsed
from gptjax.roads.definition import Stage

FOLDER = "road"
STARTED, DONE = "started", "done"


@dataclass(frozen=True)
class Marker:
    """What is known of a stage. seconds: spent in it, over all starts; figures: its result in a few words."""

    key: str
    state: str
    command: str
    seconds: float = 0.0
    figures: str = ""


def read_marker(workdir: Path, stage: Stage) -> Marker | None:
    """The stage's marker; None if it was never started.

    Raises:
      ConfigError: the file is damaged.
    """
    path = _path(workdir, stage)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    remedy = "remove it to do the stage again"
    content = parsed(data, str(path), remedy)
    try:
        marker = Marker(**content)
        types_are_right = all(
            isinstance(value, type(default)) for value, default in zip(asdict(marker).values(), _LIKE)
        )
    except TypeError:
        types_are_right = False
    if not types_are_right:
        raise ConfigError(f"{path} is not a stage's marker; {remedy}")
    return marker


_LIKE = ("", "", "", 0.0, "")


def write_marker(workdir: Path, stage: Stage, marker: Marker) -> None:
    path = _path(workdir, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as file:
        file.write((json.dumps(asdict(marker), indent=1) + "\n").encode())


def _path(workdir: Path, stage: Stage) -> Path:
    return workdir / FOLDER / f"{stage.name}.json"


def keys_of(stages: Sequence[Stage]) -> dict[str, str]:
    """The key of each stage, by name."""
    keys: dict[str, str] = {}
    makers: list[tuple[Path, str]] = []  # of the stages so far: what is made, and the key
    for stage in stages:
        made_by_others = [(path, key) for path, key in makers]
        content = {
            "command": stage.command,
            "lines": stage.lines,
            "code": [file_hash(path) for path in _python_files(stage.command)],
            "reads": [_identity(Path(os.path.abspath(path)), made_by_others) for path in stage.reads],
        }
        keys[stage.name] = xxhash.xxh3_128_hexdigest(json.dumps(content).encode("utf-8", "surrogateescape"))
        if stage.makes:
            makers.append((Path(os.path.abspath(stage.makes)), keys[stage.name]))
    return keys


def _python_files(command: Sequence[str]) -> list[Path]:
    """The script of a command, and its config file without the argument after the colon."""
    named = [command[0], *(part.partition("=")[2] for part in command[1:] if part.startswith("--config="))]
    files = [Path(text.partition(".py:")[0] + (".py" if ".py:" in text else "")) for text in named]
    return [file for file in files if file.suffix == ".py" and file.is_file()]


def _identity(path: Path, makers: list[tuple[Path, str]]) -> list:
    """What stands for a file or folder in a key; empty if it does not exist yet."""
    for made, key in reversed(makers):
        if path == made or made in path.parents:
            return [key]
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [
        (str(file.relative_to(path)), status.st_size, status.st_mtime_ns) for file in files if (status := file.stat())
    ]
