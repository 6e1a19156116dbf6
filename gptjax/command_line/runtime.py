"""How a process compiles and runs programs: a cache, and one after another on processors."""

from __future__ import annotations

import os

import jax

from gptjax.files.folders import cache_folder

WORTH_KEEPING = 0.5  # seconds of compilation from which a program is cached


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


def run_in_turn() -> None:
    """On processors, makes each step of one device wait for the one before it. Call it before JAX looks for devices.

    By default, XLA takes the temporary arrays of the next step while a step still runs, and a heap that keeps what it
    frees grows to several such blocks; if steps wait, it holds one (experiments/plan). There is no accelerator to keep
    busy, so nothing is lost.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
