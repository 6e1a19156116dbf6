"""Measures the time of compiling, reading prompts and generating."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")


@dataclass
class Timing:
    """The time of one or more calls. The prefill draws the first new token of a row."""

    compile_seconds: float = 0.0
    seconds: float = 0.0  # everything except compilation
    prefill_seconds: float | None = 0.0  # part of `seconds`; None: unknown, since one program did both
    prompt_tokens: int = 0
    new_tokens: int = 0
    completions: int = 0

    def add(self, seconds: float, prefill_seconds: float | None = 0.0) -> None:
        """Adds `seconds`, of which prefilling took `prefill_seconds` (None: unknown)."""
        self.seconds += seconds
        if self.prefill_seconds is not None:
            self.prefill_seconds = None if prefill_seconds is None else self.prefill_seconds + prefill_seconds

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of the whole time, including reading prompts."""
        return self.new_tokens / max(self.seconds, 1e-9)

    @property
    def prefill_tokens_per_second(self) -> float | None:
        if self.prefill_seconds is None:
            return None
        return self.prompt_tokens / max(self.prefill_seconds, 1e-9)

    @property
    def decode_tokens_per_second(self) -> float | None:
        if self.prefill_seconds is None:
            return None
        return (self.new_tokens - self.completions) / max(self.seconds - self.prefill_seconds, 1e-9)


_ran: set[Hashable] = set()  # JAX caches programs for the whole process, for all generators


def is_new(*program: Hashable) -> bool:
    """Whether the next call compiles this program, so that compiling is not timed as generating.

    Only reported times depend on this: JAX itself decides which program runs.

    Args:
      program: its name, its static values, and the keys of its arguments.
    """
    program += (jax.sharding.get_abstract_mesh(), jax.config.jax_default_matmul_precision)  # type: ignore[attr-defined]
    never_ran = program not in _ran
    _ran.add(program)
    return never_ran


def program_key(arguments: Any) -> Hashable:
    """The properties of arguments on which a compiled program depends: structure, shapes, types and placement."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves)


def timed(run: Callable[[], Result]) -> tuple[Result, float]:
    """The result of `run` after it has been computed, and the seconds that it took."""
    began = time.perf_counter()
    result = jax.block_until_ready(run())
    return result, time.perf_counter() - began
