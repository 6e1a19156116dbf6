"""Times a function: a warm-up, then turns of about a second each, all of which are kept."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence

REHEARSING = os.environ.get("GPU_DAY_REHEARSAL") == "1"  # a rehearsal only checks that figures appear
TURNS, TURN_SECONDS = (2, 0.01) if REHEARSING else (7, 1.0)


def time_turns(repeat: Callable[[int], None], turns: int = TURNS, target: float = TURN_SECONDS) -> list[float]:
    """Seconds per repetition in each turn. `repeat(n)` does it n times and waits until the device has done so."""
    repeat(2)
    started = time.perf_counter()
    repeat(2)
    number = max(1, round(2 * target / (time.perf_counter() - started)))
    seconds = []
    for _ in range(turns):
        started = time.perf_counter()
        repeat(number)
        seconds.append((time.perf_counter() - started) / number)
    return seconds


def time_call(function: Callable, *arguments) -> list[float]:
    """Like `time_turns`, for a compiled JAX function."""
    import jax

    def repeat(number: int) -> None:
        for _ in range(number):
            out = function(*arguments)
        jax.block_until_ready(out)

    return time_turns(repeat)


def spread(work: float, seconds: Sequence[float], name: str) -> dict[str, float]:
    """Median, least and most of work per second over the turns: {name, name_least, name_most}."""
    rates = [work / each for each in seconds]
    return {name: statistics.median(rates), f"{name}_least": min(rates), f"{name}_most": max(rates)}
