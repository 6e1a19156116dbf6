"""Compiled programs kept between runs: the second start of a command does not compile again."""

from __future__ import annotations

import jax

from gptjax.folders import cache_folder

WORTH_KEEPING = 0.5  # seconds of compilation


def use_compilation_cache() -> None:
    """Keeps programs in JAX_COMPILATION_CACHE_DIR, or else in the user's cache folder. Only you should write there."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
