"""The records of a task's items in a JSONL file: a header, then a line per item, written as soon as the item is scored.

A killed evaluation continues where it stopped: recorded items are not computed again, and an incomplete line is
ignored. The header says what the records depend on (card, data, tokenizer, checkpoint …). If any of that changes, a new
file is started, and the old one is kept beside it under another name (`kept_aside`) until it is wanted again: an
evaluation with other examples costs nobody the records of the usual one. One process at a time writes a file. Every
line is JSON; numbers that JSON lacks are stored as text (`json_ready`).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import xxhash
from absl import logging

from gptjax.files import write_aside
from gptjax.files.folders import in_turn

WAITING = "%s: another process is writing this file; waiting until it ends"


class Records:
    """Item id → its record. A context manager, which reads the file, and keeps it open and locked: another process that
    evaluates the same waits, and then finds the records.

    path: the file; None: records are only kept in memory.
    writes: False: the file is only read. If several processes evaluate together, one writes and all read, so that all
      compute the same items.
    """

    def __init__(self, path: Path | None, made_with: Mapping[str, Any], writes: bool = True):
        self.path, self.writes = path, writes and path is not None
        self.made_with = json.loads(json.dumps(made_with))
        self.found: dict[str, dict[str, Any]] = {}
        self._file: IO[bytes] | None = None
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> Records:
        if self.path is None:
            return self
        if self.writes:
            lock = self.path.with_name(f".{self.path.name}.lock")
            self._lock.enter_context(in_turn(lock, lambda: logging.warning(WAITING, self.path)))
        aside = kept_aside(self.path, self.made_with)
        header, found = read(self.path)
        if self.writes and header != self.made_with:
            if found:
                self.path.replace(kept_aside(self.path, header))
            if aside.exists():
                aside.replace(self.path)
        of_both = read(self.path), read(aside)
        self.found = next((found for header, found in of_both if header == self.made_with), {})
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(list(self.found.values()))  # removes an incomplete line
            self._file = open(self.path, "ab")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()

    def add(self, record: Mapping[str, Any]) -> None:
        self.found[record["item"]] = dict(record)
        if self._file is not None:
            self._file.write(_line(record))
            self._file.flush()

    def finish(self, order: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the records of these items in this order, and rewrites the file in the same order."""
        chosen = [self.found[item] for item in order]
        if self._file is not None:
            self._file.close()
            self._file = None
            wanted = set(order)
            rest = [record for item, record in self.found.items() if item not in wanted]
            self._write([*chosen, *rest])
        return chosen

    def _write(self, records: Sequence[Mapping[str, Any]]) -> None:
        assert self.path is not None
        with write_aside(self.path) as file:
            file.write(_line({"made_with": self.made_with}))
            for record in records:
                file.write(_line(record))


def kept_aside(path: Path, made_with: Mapping[str, Any]) -> Path:
    """Where records that depend on this are, if `path` has others: TASK.0123abcd.jsonl."""
    digest = xxhash.xxh3_64_hexdigest(json.dumps(made_with, sort_keys=True).encode())[:8]
    return path.with_name(f"{path.stem}.{digest}{path.suffix}")


def read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What the records depend on, and item id → record; nothing if there is no file. Incomplete lines are ignored."""
    header: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return header, found
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1]):  # a last line without a newline is incomplete
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if number == 0:
            header = value.get("made_with", {}) if isinstance(value, dict) else {}
        elif isinstance(value, dict) and "item" in value:
            found[value["item"]] = value
    return header, found


def json_ready(value: Any) -> Any:
    """JSON with the texts Infinity, -Infinity and NaN in place of numbers that JSON lacks, such as the log-likelihood
    of an impossible text. `float` parses them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value).replace("inf", "Infinity").replace("nan", "NaN")
    if isinstance(value, Mapping):
        return {key: json_ready(each) for key, each in value.items()}
    return [json_ready(each) for each in value] if isinstance(value, list | tuple) else value


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(json_ready(value), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
