"""What the engine counts and times, for a page of metrics; every figure is written by the engine's thread only."""

from __future__ import annotations

import bisect
import time
from collections import deque
from dataclasses import dataclass, field

from gptjax.inference.request import FINISH_REASONS, Request

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
_RECENT = 10.0  # seconds over which `tokens_per_second` is an average


@dataclass
class Histogram:
    """Counts of values by size. counts[i] is the number of values of at most bounds[i] and above the bound before it;
    the last is that of larger ones."""

    bounds: tuple[float, ...] = _SECONDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass
class EngineMetrics:
    """Totals since the start, unless a line says otherwise."""

    is_up: bool = False  # now
    num_slots: int = 0  # now
    requests_running: int = 0  # now; requests whose prompt is being read or whose texts are being generated
    requests_waiting: int = 0  # now
    slots_in_use: int = 0  # now
    requests_finished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINISH_REASONS, 0))
    requests_refused: int = 0  # because the queue was full
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of prompt_tokens: not read again
    prefix_lookups: int = 0  # prompts for which kept blocks were looked up
    prefix_hits: int = 0  # of these: at least one block was found
    generated_tokens: int = 0
    steps: int = 0  # of the model, one after another: calls of the device times steps per call
    proposed_tokens: int = 0  # copied from a prompt or text, for the model to check
    accepted_tokens: int = 0  # of proposed_tokens: the text went on with them
    queue_seconds: Histogram = field(default_factory=Histogram)
    time_to_first_token_seconds: Histogram = field(default_factory=Histogram)
    seconds_per_token: Histogram = field(default_factory=Histogram)  # after the first one, a mean per request
    request_seconds: Histogram = field(default_factory=Histogram)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)  # (when, tokens)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second in the last 10 seconds."""
        oldest = time.monotonic() - _RECENT
        return sum(count for when, count in tuple(self._recent) if when >= oldest) / _RECENT

    def generated(self, count: int) -> None:
        now = time.monotonic()
        self.generated_tokens += count
        self._recent.append((now, count))
        while self._recent[0][0] < now - _RECENT:
            self._recent.popleft()

    def finished(self, request: Request) -> None:
        """Counts a request that has ended: by the reason of its first text."""
        self.requests_finished[request.finish_reason or "error"] += 1
        timings = request.timings
        if timings.queued is not None:
            self.queue_seconds.add(timings.queued)
        if timings.time_to_first_token is not None:
            self.time_to_first_token_seconds.add(timings.time_to_first_token)
        if timings.total is not None:
            self.request_seconds.add(timings.total)
            rest = request.completion_tokens - request.params.n
            if rest > 0 and timings.first_token is not None and timings.finished is not None:
                longest = -(-rest // request.params.n)
                self.seconds_per_token.add((timings.finished - timings.first_token) / longest)
