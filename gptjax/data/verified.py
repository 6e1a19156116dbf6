"""Hashes files once: they are hashed again only if their size, modification time or inode changes.

The results are stored in the user's cache folder, so that a prepared folder may be read-only. If several processes
start on one machine, the first one hashes; the others wait and read its results. An edit that keeps size and time is
not detected; delete `verified` in the cache folder to hash everything again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import xxhash

from gptjax.data.watched import file_state
from gptjax.files import write_aside
from gptjax.files.folders import cache_folder, in_turn


def hash_once(folder: Path, entries: Sequence[dict], check: Callable[[dict], None]) -> None:
    """Calls `check(entry)` for each file (name, size, hash) that was not yet verified in its current state.

    Raises what `check` raises; files that were verified before are still recorded.
    """
    note = cache_folder() / "verified" / f"{xxhash.xxh3_64_hexdigest(os.path.realpath(folder).encode())}.json"
    with in_turn(note.with_suffix(".lock")):
        known = _read(note)
        try:
            for entry in entries:
                now = [*file_state(folder / entry["name"]), entry["hash"]]
                if known.get(entry["name"]) != now:
                    check(entry)
                    known[entry["name"]] = now
        finally:
            _write(note, known)


def _read(note: Path) -> dict:
    try:
        known = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(note: Path, known: dict) -> None:
    """Stores the results. If that fails, the files are hashed again the next time."""
    with contextlib.suppress(OSError), write_aside(note) as file:
        file.write(json.dumps(known).encode())
