"""The processor cores that this process may use."""

from __future__ import annotations

import os


def available_cores() -> list[int]:
    """Their numbers. On Linux, those that the process is bound to (`taskset`, SLURM, a container's set of cores)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
