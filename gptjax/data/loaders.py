"""Loader processes: they end with the run, not before it. One that dies or hangs ends the run with a sentence."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

from gptjax.config import RunError

SILENCE = 1800  # seconds after which loaders that give no batch count as hanging; network disks may pause for minutes
LAST_STEPS = 60.0  # seconds for which a loader process goes on after a signal to stop
_PAUSE = 1.0  # seconds between two checks

T = TypeVar("T")


def _end_later(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(LAST_STEPS, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()


def depend_on_the_parent(index: int = 0, count: int = 1) -> None:
    """Makes a loader process ignore Ctrl-C and end with its parent.

    Ctrl-C reaches all processes of a terminal while the trainer still needs batches, as SIGHUP does when the terminal
    closes, and SIGTERM when Slurm stops a job. After the last two, the process goes on for the trainer's last steps.
    Without its parent, it would wait forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end_later)
    parent = multiprocessing.parent_process()

    def end_with_it() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()


def checked(batches: Iterator[T]) -> Iterator[T]:
    """The batches of Grain's loader processes.

    Raises:
      RunError: a loader process has ended, or none has given the next batch for a long time.
    """
    wait = _Wait()
    try:
        while True:
            wait.seconds = 0.0
            wait.goes_on.set()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "terminated unexpectedly" not in str(error):
                    raise
                raise RunError(
                    f"{wait.reason or _died(error)}; the same command resumes from the last checkpoint"
                ) from None
            finally:
                wait.goes_on.clear()
            yield batch
    finally:
        wait.is_over = True
        wait.goes_on.set()


class _Wait(threading.Thread):
    """Kills the loader processes if the wait for a batch is too long, which then ends in Grain's error.

    It counts its own checks and does not read a clock, so that a run may be stopped (Ctrl-Z) for any time.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds = 0.0  # that the current wait has taken
        self.reason = ""
        self.goes_on = threading.Event()
        self.is_over = False
        self.start()

    def run(self) -> None:
        while self.goes_on.wait() and not self.is_over:
            time.sleep(_PAUSE)
            self.seconds += _PAUSE
            if self.goes_on.is_set() and self.seconds > SILENCE:
                self.reason = f"the loader processes (data.workers) have given no batch for {SILENCE:g} s: one hangs"
                for process in multiprocessing.active_children():
                    process.kill()
                return


def _died(error: RuntimeError) -> str:
    status = str(error).partition("exit code ")[2].partition(".")[0]
    killed = ": it was killed, perhaps because memory ran out" if status == "-9" else f" with exit status {status}"
    return f"a loader process (data.workers) has ended{killed}"
