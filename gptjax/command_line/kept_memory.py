"""Makes a process reuse the memory that it frees. Needs no JAX, which starts threads."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, by their numbers in malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = -1
_GROWTH = 256 * 2**20  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """Makes this process keep memory that it frees; returns whether the C library supports this.

    XLA:CPU allocates its temporaries anew in every step. By default, blocks of this size come from mmap and return to
    the system when the step ends, so every step maps and zeroes all pages again: on a CPU, page faults can take a third
    of a training step. After this call the blocks come from one heap that only grows, so the process keeps its peak
    memory.

    Call this function before the process starts its second thread, as `gptjax/__init__.py` does for `gptjax train`:
    the C library decides then how many heaps there are. Those of threads cannot hold large blocks, which are mapped
    anew. Without glibc, it has no effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
