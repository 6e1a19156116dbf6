"""Process settings for speed: a cache of compiled programs, and reuse of freed memory."""

from __future__ import annotations

import ctypes
import os
import sys

import jax

from gptjax.files.folders import cache_folder

WORTH_KEEPING = 0.5  # seconds of compilation from which a program is cached

# Parameters of glibc's mallopt, by their numbers in malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = -1
_GROWTH = 256 * 2**20  # bytes by which the heap grows


def use_compilation_cache(worth_keeping: float = WORTH_KEEPING) -> None:
    """Keeps compiled programs between runs, so that the second start of a command does not compile again.

    worth_keeping: seconds of compilation from which a program is kept. A server has many programs that take less than
      the default, and compiles all of them at each start.

    The cache is in JAX_COMPILATION_CACHE_DIR, or else in the user's cache folder. Only the user should be able to write
    there. JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS, if set, gives the compilation time from which programs are kept.
    """
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # JAX defines its settings at run time
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", worth_keeping)


def keep_freed_memory() -> bool:
    """Makes this process keep memory that it frees; returns whether the C library supports this.

    XLA:CPU allocates its temporaries anew in every step. By default, blocks of this size come from mmap and return to
    the system when the step ends, so every step maps and zeroes all pages again: on a CPU, page faults can take a third
    of a training step. After this call the blocks come from one heap that only grows, so the process keeps its peak
    memory. Call this function before JAX starts its threads, because their own heaps cannot hold large blocks. Without
    glibc, it has no effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
