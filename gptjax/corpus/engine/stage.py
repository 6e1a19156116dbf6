"""A stage: a function of one shard, whose files appear all at once or not at all.

<work>/<stage>-<key>/part-00012.documents.parquet   what task 12 wrote
<work>/<stage>-<key>/part-00012.json                its marker, written last: key, files with size and hash, report
<work>/<stage>-<key>/part-00012.failed              why it was given up, where it was

An attempt writes into a folder of its own, so that two of them (a lost driver's worker and its successor's) never meet;
its files are then flushed, renamed into place and named in the marker. As a stage is a pure function, whichever attempt
comes last puts the same bytes there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from gptjax.corpus.libraries import check_same_here
from gptjax.files import file_entry
from gptjax.folders import LOCK

ATTEMPT = ".attempt"  # how the name of an attempt's folder ends
_MARKER = re.compile(r"part-\d+\.json")


@dataclass(frozen=True)
class Task:
    """One shard's work.

    Attributes:
      number: its place among the stage's tasks, and the number in the names of its files.
      inputs: JSON: what it works on. Files of earlier stages stand in it as the entries that those stages' results
        have (name, size, hash), so that a task's key follows from what is in them; 'libraries', versions of those that
        decide what comes out (libraries.py), so that it follows from these, too.
      options: JSON: the stage's.
      work: the folder that the entries' names start from.
    """

    number: int
    inputs: Any
    options: dict[str, Any]
    work: Path

    def path(self, entry: dict) -> Path:
        """Where a file of an earlier stage is."""
        return self.work / entry["name"]


@dataclass(frozen=True)
class Stage:
    """What is done to every shard.

    Attributes:
      name: of its folder, and what messages say.
      run: a function at the top of a module: writes files into the folder that it is given and returns a report (JSON).
        The same task must give the same bytes, whenever and wherever it runs.
      version: raised when the code changes what comes out.
      options: JSON: everything besides the inputs that the outcome depends on.
    """

    name: str
    run: Callable[[Task, Path], dict]
    version: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return _hash(self.name, self.version, self.options)

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.key[:8]}"

    def task_key(self, inputs: Any) -> str:
        """What a marker must hold to stand for this stage's work on these inputs."""
        return _hash(self.key, inputs)


def part_name(number: int) -> str:
    return f"part-{number:05d}"


def finished(stage: Stage, work: Path, number: int, inputs: Any) -> dict | None:
    """The result of a task that is done: {'files': {name that the stage gave: entry}, 'report': …}; else None."""
    marker = work / stage.folder / f"{part_name(number)}.json"
    try:
        saved = json.loads(marker.read_text(encoding="utf-8"))
        whole = saved["key"] == stage.task_key(inputs) and all(
            (work / entry["name"]).stat().st_size == entry["size"] for entry in saved["files"].values()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"files": saved["files"], "report": saved["report"]} if whole else None


def perform(stage: Stage, work: Path, number: int, inputs: Any) -> dict:
    """Runs one task and publishes what it wrote; returns its result, as `finished` does.

    Raises:
      Exception: whatever the stage raises; then nothing of the attempt is left.
    """
    check_same_here(inputs)
    folder = work / stage.folder
    attempt = Path(tempfile.mkdtemp(prefix=f"{part_name(number)}.", suffix=ATTEMPT, dir=folder))
    try:
        report = stage.run(Task(number, inputs, stage.options, work), attempt)
        names = sorted(path.name for path in attempt.iterdir())
        marker = folder / f"{part_name(number)}.json"
        marker.unlink(missing_ok=True)  # of other inputs: it must not vouch for these files
        files = {name: _publish(attempt / name, folder / f"{part_name(number)}.{name}") for name in names}
        result = {"files": files, "report": report}
        (attempt / "marker").write_text(json.dumps({"key": stage.task_key(inputs), **result}, indent=1) + "\n")
        _flush(folder)
        _publish(attempt / "marker", marker)
        _flush(folder)
        return json.loads(json.dumps(result))  # as a later run will read it
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def is_of_use(work: Path) -> bool:
    """Whether something is in a folder of stages that another start would use, or that tells why this one failed: a
    file that a task has written, beside its marker; a note of failure; the log of a job."""
    return any(
        path.is_file() and path.name != LOCK and not _MARKER.fullmatch(path.name)
        for path in work.rglob("*")
        if not any(parent.name.endswith(ATTEMPT) for parent in path.parents)
    )


def clear_attempts(folder: Path) -> None:
    """Deletes what killed attempts left."""
    for path in folder.glob(f"*{ATTEMPT}"):
        shutil.rmtree(path, ignore_errors=True)


def _publish(path: Path, place: Path) -> dict:
    """Puts a written file in its place once its bytes are on disk; returns its entry."""
    entry = file_entry(path)
    _flush(path)
    os.replace(path, place)
    return {**entry, "name": f"{place.parent.name}/{place.name}"}


def _flush(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(*values: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True, ensure_ascii=True).encode())
