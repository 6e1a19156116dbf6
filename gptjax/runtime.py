"""What a process asks of its machine before it computes: a cache of compiled programs, and to keep freed memory."""

from __future__ import annotations

import ctypes
import sys

import jax

from gptjax.folders import cache_folder

WORTH_KEEPING = 0.5  # seconds of compilation

# Parameters of glibc's mallopt, by their numbers in malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = -1
_GROWTH = 256 * 2**20  # bytes that the heap grows by


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that the second start of a command does not compile again.

    They lie in JAX_COMPILATION_CACHE_DIR, or else in the user's cache folder. Only the user should be able to write
    there.
    """
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # JAX defines its settings at run time
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it has once allocated; returns whether the C library can.

    XLA:CPU allocates the temporaries of every step anew. By default, blocks that large come from mmap and go back to
    the system when the step ends, so that every step has all their pages mapped and zeroed again: on a CPU, page faults
    can take a third of a training step. After this call they come from one heap that only grows: the process holds the
    most that it ever needed. Call it before JAX starts its threads, whose own heaps could not hold large blocks. It
    changes nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
