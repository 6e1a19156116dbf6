"""Times a function: a warm-up, then turns of about a second each, all of which are kept."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence

REHEARSING = os.environ.get("GPU_DAY_REHEARSAL") == "1"  # a rehearsal only checks that there are figures
TURNS, TURN_SECONDS = (2, 0.01) if REHEARSING else (7, 1.0)


def time_turns(repeat: Callable[[int], None], turns: int = TURNS, target: float = TURN_SECONDS) -> list[float]:
    """Returns the seconds per repetition in each turn. `repeat(n)` runs n repetitions and waits until they are done."""
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
    """Returns the median, smallest and largest work per second over the turns: {name, name_least, name_most}."""
    rates = [work / each for each in seconds]
    return {name: statistics.median(rates), f"{name}_least": min(rates), f"{name}_most": max(rates)}
