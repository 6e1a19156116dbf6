"""A stage: a function of one shard, whose files appear all at once or not at all.

<work>/<stage>-<key>/part-00012.documents.parquet   what task 12 wrote
<work>/<stage>-<key>/part-00012.json                its marker, written last: key, files with size and hash, report
<work>/<stage>-<key>/part-00012.failed              the reason, if it was given up
<work>/<stage>-<key>/part-00012.ends                the documents at which its processes ended, until it is finished

Each attempt writes into its own folder, so that two attempts (such as those of a lost driver's worker and of its
successor) do not collide. Its files are then flushed, renamed into place and named in the marker. Since a stage is a
pure function, every attempt puts the same bytes there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from gptjax.corpus.engine.journal import FILE as JOURNAL
from gptjax.corpus.engine.journal import Journal
from gptjax.corpus.libraries import check_same_here
from gptjax.files import file_entry
from gptjax.files.folders import LOCK

ATTEMPT = ".attempt"  # how the name of an attempt's folder ends
_MARKER = re.compile(r"part-\d+\.json")


@dataclass(frozen=True)
class Task:
    """One shard's work.

    Attributes:
      number: its place among the stage's tasks, and the number in the names of its files.
      inputs: JSON: what it works on. Files of earlier stages are given as the entries in those stages' results (name,
        size, hash), and 'libraries' has the versions of the libraries that decide the output (libraries.py). So a
        task's key depends on the content of files and on these versions.
      options: JSON: the options of the stage.
      work: the folder to which the entries' names are relative.
      journal: where a function notes the document that it is at; it leaves out those that the journal sets aside.
    """

    number: int
    inputs: Any
    options: dict[str, Any]
    work: Path
    journal: Journal = field(default_factory=Journal)

    def path(self, entry: dict) -> Path:
        """Where a file of an earlier stage is."""
        return self.work / entry["name"]


@dataclass(frozen=True)
class Stage:
    """A function that is applied to every shard.

    Attributes:
      name: the name of its folder, and the name in messages.
      run: a function at the top of a module: writes files into the folder that it is given and returns a report (JSON).
        The same task must give the same bytes, whenever and wherever it runs.
      version: raised when a change of the code changes the output.
      options: JSON: everything besides the inputs on which the output depends.
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
        """The content by which a marker belongs to this stage and these inputs."""
        return _hash(self.key, inputs)


def part_name(number: int) -> str:
    return f"part-{number:05d}"


def finished(stage: Stage, work: Path, number: int, inputs: Any) -> dict | None:
    """The result of a finished task, {'files': {name in the stage: entry}, 'report': …}; None if it is not finished."""
    marker = work / stage.folder / f"{part_name(number)}.json"
    try:
        saved = json.loads(marker.read_text(encoding="utf-8"))
        whole = saved["key"] == stage.task_key(inputs) and all(
            (work / entry["name"]).stat().st_size == entry["size"] for entry in saved["files"].values()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"files": saved["files"], "report": saved["report"]} if whole else None


class EndedAt(MemoryError):
    """Memory ran out at `place`, which is a document."""

    def __init__(self, place: str):
        super().__init__(place)
        self.place = place


def perform(
    stage: Stage,
    work: Path,
    number: int,
    inputs: Any,
    ends: Mapping[str, Sequence[str]] | None = None,
    seconds: float = 0,
) -> dict:
    """Runs one task and publishes what it wrote; returns its result, as `finished` does.

    ends, seconds: those of the attempt's Journal.

    Raises:
      Exception: whatever the stage raises; the attempt then leaves nothing behind.
      EndedAt: a document needs more memory than this process may have.
    """
    check_same_here(inputs)
    folder = work / stage.folder
    attempt = Path(tempfile.mkdtemp(prefix=f"{part_name(number)}.", suffix=ATTEMPT, dir=folder))
    journal = Journal(attempt / JOURNAL, ends, seconds)
    try:
        try:
            report = stage.run(Task(number, inputs, stage.options, work, journal), attempt)
        except MemoryError:
            if journal.place:
                raise EndedAt(journal.place) from None
            raise
        finally:
            journal.close()
        (attempt / JOURNAL).unlink()
        names = sorted(path.name for path in attempt.iterdir())
        marker = folder / f"{part_name(number)}.json"
        marker.unlink(missing_ok=True)  # a marker for other inputs must not be beside these files
        files = {name: _publish(attempt / name, folder / f"{part_name(number)}.{name}") for name in names}
        result = {"files": files, "report": report}
        (attempt / "marker").write_text(json.dumps({"key": stage.task_key(inputs), **result}, indent=1) + "\n")
        _flush(folder)
        _publish(attempt / "marker", marker)
        _flush(folder)
        return json.loads(json.dumps(result))  # as a later run reads it
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def is_of_use(work: Path) -> bool:
    """Whether a folder of stages has something that another start would use, or that shows why this one failed: the
    published file of a task, a note of a failure, or the log of a job.
    """
    return any(
        path.is_file() and path.name != LOCK and not _MARKER.fullmatch(path.name)
        for path in work.rglob("*")
        if not any(parent.name.endswith(ATTEMPT) for parent in path.parents)
    )


def clear_attempts(folder: Path) -> None:
    """Deletes what killed attempts left behind."""
    for path in folder.glob(f"*{ATTEMPT}"):
        shutil.rmtree(path, ignore_errors=True)


def _publish(path: Path, place: Path) -> dict:
    """Moves a written file to its place once its bytes are on disk; returns its entry."""
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
