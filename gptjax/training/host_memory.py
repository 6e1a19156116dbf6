"""The memory of this machine that this process may use: the smallest of several limits, and what is free of each.

The limits are the machine's memory, those of the process's control groups (containers, batch systems), and those of
the shell (`ulimit -v`, `ulimit -d`).
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS, PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self")
_FILES = {  # of a control group, by version: its limit, what it uses, and the statistic of what it can give back
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def host_limit() -> int | None:
    """The bytes that this process may use; None if no limit is known."""
    return min((limit for limit, _ in _limits()), default=None)


def host_free() -> int | None:
    """The bytes that this process may still allocate; None if no limit is known."""
    return min((max(limit - used, 0) for limit, used in _limits()), default=None)


def _limits() -> Iterator[tuple[int, int]]:
    """Yields (bytes of a limit, bytes used of it)."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        free = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
        yield total, 0 if free is None else total - free
    except (AttributeError, ValueError, OSError):  # not on this system
        pass
    for folder, (limit, used, cached) in _control_groups():
        if (most := _number(folder / limit)) is not None:
            given_back = re.search(rf"^{cached} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
            yield most, (_number(folder / used) or 0) - (int(given_back[1]) if given_back else 0)
    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft, _kilobytes(PROCESS / "status", name) or 0


def _control_groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of this process's control groups and of those around them, with the names of their files.

    A container may see its own group as the outermost one, so that the path of the group does not exist in it.
    """
    for line in _text(PROCESS / "cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        for kind in controllers.split(","):
            if kind in _FILES:
                group = Path(path.lstrip("/"))
                yield from ((CONTROL_GROUPS / kind / each, _FILES[kind]) for each in (group, *group.parents))


def _number(file: Path) -> int | None:
    """The number in a file; None if there is no file, or it says 'max'."""
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _kilobytes(file: Path, name: str) -> int | None:
    """The bytes of a line such as 'MemAvailable:  18027120 kB'."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", _text(file), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
