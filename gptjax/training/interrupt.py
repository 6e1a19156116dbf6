"""Turns SIGTERM, SIGHUP and Ctrl-C into a request to stop at the next step, on which all processes agree."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

from gptjax.display.terminal import exit_at_once, print_last
from gptjax.errors import EndedBySignal
from gptjax.parallel import distributed, members


class StopRequest:
    """Inside `with StopRequest() as stop:`, the first SIGTERM, SIGHUP or SIGINT only requests a stop.

    A run gets SIGHUP when its terminal closes, for example with an ssh connection; under nohup it stays ignored. The
    first Ctrl-C prints what it does; a second one interrupts at once. With several processes, a signal to any of them
    stops all at the same step: JAX's preemption service, which listens to SIGTERM, finds a step that no process has
    passed.

    Until the first step there is nothing to save, and the main thread may compile for minutes, during which Python
    calls no signal handler. Until `begin`, a signal therefore ends the process from another thread, with one sentence.
    The other processes of the run end with it.
    """

    def __init__(self, every: int | None = 1):
        """every: the run can only stop before a step that is a multiple of this number. None: steps start later, with
        `begin`."""
        self._every, self._asked, self._several = every, False, False
        self._received: int | None = None

    def __enter__(self) -> StopRequest:
        handled = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        threading.Thread(target=self._end_before_the_first_step, args=(reader, handled), daemon=True).start()
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if self._every is not None:
            self.begin(self._every)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._previous_writer)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._writer)  # ends the thread

    def begin(self, every: int) -> None:
        """From now on, a signal requests a stop before a step that is a multiple of `every`."""
        self._every = every
        if jax.process_count() > 1:
            distributed.listen_for_preemption()  # takes SIGTERM over
            self._several = True
            if self._received is not None:
                os.kill(os.getpid(), signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT and self._every is not None:
            with contextlib.suppress(OSError):  # unlike print, this is safe in a signal handler
                os.write(2, b"\nstopping after this step, then saving (Ctrl-C again stops at once, without saving)\n")
        self._received = number
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    def _end_before_the_first_step(self, reader: int, handled: list[int]) -> None:
        """Ends all processes at the first signal before `begin`. reader: Python writes the numbers of signals to it, at
        once, whatever the main thread does."""
        while data := os.read(reader, 1):
            number = data[0]
            if self._every is None and number in handled:
                error = EndedBySignal(
                    f"stopped by {signal.Signals(number).name} before the first step of this start: nothing new was "
                    "saved, and the same command starts it again",
                    number,
                )
                if members.end_all(error) is error:  # otherwise the reason of another process is reported already
                    print_last(f"{error}\n")
                    exit_at_once(error.status)
        os.close(reader)

    def reached(self, step: int) -> bool:
        """Whether to stop before `step`; every process must call this at every step."""
        assert self._every is not None  # set by `begin`
        if self._several:
            self._asked |= multihost_utils.reached_preemption_sync_point(step)
        else:
            self._asked = self._received is not None
        return self._asked and step % self._every == 0

    @property
    def name(self) -> str:
        return signal.Signals(self._received or signal.SIGTERM).name
