"""How the process gets its memory from the system: on a CPU, page faults can be a third of a training step."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, by their numbers in malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = -1
_GROWTH = 256 * 2**20  # bytes that the heap grows by


def keep_freed_memory() -> bool:
    """Lets this process keep what it has once allocated; returns whether the C library can.

    XLA:CPU allocates the temporaries of every step anew. Blocks that large come from mmap by default and go back to the
    system when the step ends, so that every step has all their pages mapped and zeroed again. After this they come from
    one heap that only grows: the process holds the most that it ever needed. To be called before JAX starts its
    threads, whose own heaps could not hold large blocks. Changes nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
