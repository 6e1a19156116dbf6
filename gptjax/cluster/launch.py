"""Starts the training command of a run, here or inside a cluster job, and keeps its output and exit status in a folder.

This module imports little because a cluster job loads it before it starts the real work.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gptjax.errors import BY_SIGNAL
from gptjax.files import write_aside

OUTPUT = "output.txt"
EXIT_STATUS = "exit_status"
LAST_LINES = 8


class Command(Protocol):
    """A command line to launch, and its own folder, which holds all of its state."""

    @property
    def name(self) -> str: ...

    @property
    def workdir(self) -> Path: ...

    @property
    def command(self) -> list[str]: ...


class Launched:
    """A running command. It has its own session, so that a terminal's Ctrl-C reaches only the sweep, which stops it.

    Its output is appended to `workdir`/output.txt. Its exit status is written to `workdir`/exit_status when `poll` or
    `wait` has seen the end.
    """

    def __init__(self, command: Sequence[str], workdir: Path, environment: Mapping[str, str]):
        self._workdir = workdir
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / EXIT_STATUS).unlink(missing_ok=True)
        with open(workdir / OUTPUT, "ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Python buffers stdout in a file but not stderr; unbuffered, both are in chronological order.
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Returns the exit status, or None while the command runs."""
        return self._seen(self._process.poll())

    def wait(self) -> int:
        status = self._process.wait()
        self._seen(status)
        return status

    def stop(self) -> None:
        """Asks for a checkpoint and a clean end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def finish(self) -> None:
        """Stops the command and waits for its end. Takes no lock, so a signal handler that interrupts `wait` can call
        it."""
        self.stop()
        try:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # the command had ended already
            pass

    def kill(self) -> None:
        """Ends the command at once, with all processes that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _seen(self, status: int | None) -> int | None:
        # A negative status, or that of a run that reports it (EndedBySignal), means that a signal ended the run: it did
        # not fail, and can continue later.
        if status is not None:
            with write_aside(self._workdir / EXIT_STATUS) as file:
                file.write(f"{status if 0 < status <= BY_SIGNAL else 0}\n".encode())
        return status


def exit_status(workdir: Path) -> int:
    """Returns the exit status of the last start, or 0 if there is none."""
    try:
        return int((workdir / EXIT_STATUS).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def last_lines(workdir: Path, count: int = LAST_LINES) -> list[str]:
    """Returns the last lines of a run's output, without empty lines."""
    try:
        with open(workdir / OUTPUT, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 8192, 0))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
