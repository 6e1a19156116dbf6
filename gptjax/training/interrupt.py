"""Turns SIGTERM, SIGHUP and Ctrl-C into a request to stop at the next step, on which all processes agree."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Inside `with StopRequest() as stop:`, the first SIGTERM, SIGHUP or SIGINT only requests a stop.

    A run gets SIGHUP when its terminal closes, for example with an ssh connection; under nohup it stays ignored. The
    first Ctrl-C prints what it does; a second one interrupts at once. With several processes, a signal to any of them
    stops all at the same step: JAX's preemption service, which listens to SIGTERM, finds a step that no process has
    passed.
    """

    def __init__(self, every: int = 1):
        """every: the run can only stop before a step that is a multiple of this number."""
        self._every, self._asked = every, False

    def __enter__(self) -> StopRequest:
        self._received: int | None = None
        self._several = jax.process_count() > 1
        handled = [signal.SIGINT] if self._several else [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT and self._received is None:
            with contextlib.suppress(OSError):  # unlike print, this is safe in a signal handler
                os.write(2, b"\nstopping after this step, then saving (Ctrl-C again stops at once, without saving)\n")
        self._received = number
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to stop before `step`; every process must call this at every step."""
        if self._several:
            self._asked |= multihost_utils.reached_preemption_sync_point(step)
        else:
            self._asked = self._received is not None
        return self._asked and step % self._every == 0

    @property
    def name(self) -> str:
        return signal.Signals(self._received or signal.SIGTERM).name
