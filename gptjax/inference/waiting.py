"""The queue between those who submit requests and the engine's thread, and whether the engine takes requests at all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from gptjax.config import RunError
from gptjax.display.formatting import counted
from gptjax.inference.engine_metrics import EngineMetrics
from gptjax.inference.job import Job


class QueueFull(RunError):
    """As many requests are waiting as may wait; try again later."""


class EngineDown(RunError):
    """The engine was not started, was closed, or its device failed; no request is taken."""


class WaitingJobs:
    """Jobs that wait for a slot, in the order in which they came. All methods may be called from any thread.

    Args:
      most: how many may wait.
      metrics: `is_up` says whether the engine runs; the number of waiting and refused requests is counted.

    Attributes:
      is_closing: whether no more jobs are taken.
      is_cancelling: whether those that were taken are cancelled, too.
    """

    def __init__(self, most: int, metrics: EngineMetrics):
        self._most = most
        self.is_closing = self.is_cancelling = False
        self._metrics = metrics
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Adds a job. Raises EngineDown or QueueFull."""
        with self._changed:
            if not self._metrics.is_up or self.is_closing:
                raise EngineDown("the engine does not run: it was not started, was closed, or its device failed")
            if len(self._jobs) >= self._most:
                self._metrics.requests_refused += 1
                raise QueueFull(f"{counted(len(self._jobs), 'request')} are waiting, as many as may wait")
            self._jobs.append(job)
            self._count()
            self._changed.notify()

    def take(self) -> Job | None:
        """The job that has waited longest; None if there is none."""
        with self._changed:
            job = self._jobs.popleft() if self._jobs else None
            self._count()
            return job

    def take_cancelled(self) -> list[Job]:
        """The jobs that their callers have cancelled; all, if everything is cancelled."""
        with self._changed:
            cancelled = [job for job in self._jobs if job.request.cancelled or self.is_cancelling]
            if cancelled:
                self._jobs = deque(job for job in self._jobs if job not in cancelled)
            self._count()
            return cancelled

    def wait(self, is_busy: Callable[[], bool]) -> bool:
        """Returns True when a job waits or the engine is busy with others, and False when neither will ever be so.

        Then no job can be put any more.
        """
        with self._changed:
            while True:
                if self._jobs or is_busy():
                    return True
                if self.is_closing:
                    self._metrics.is_up = False
                    return False
                self._changed.wait()

    def wake(self) -> None:
        """Lets `wait` look again."""
        with self._changed:
            self._changed.notify()

    def close(self, cancel: bool) -> None:
        """Takes no more jobs. cancel: those that were taken are to be cancelled."""
        with self._changed:
            self.is_closing, self.is_cancelling = True, cancel
            self._changed.notify()

    def fail(self) -> None:
        """Takes no more jobs, and those that were taken are to be ended, since the engine is down."""
        with self._changed:
            self._metrics.is_up = False
            self.is_closing = self.is_cancelling = True

    def _count(self) -> None:
        self._metrics.requests_waiting = len(self._jobs)
