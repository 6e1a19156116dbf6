"""Starting the training command in a folder, here or inside a cluster's job: its output and exit status stay there.

Imports little: a cluster's job loads this module before it starts the real work.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gptjax.files import write_aside

OUTPUT = "output.txt"
EXIT_STATUS = "exit_status"
LAST_LINES = 8


class Command(Protocol):
    """What is launched: a command line, and the folder of its own where all of its state is."""

    @property
    def name(self) -> str: ...

    @property
    def workdir(self) -> Path: ...

    @property
    def command(self) -> list[str]: ...


class Launched:
    """A command at work, in a session of its own: a terminal's Ctrl-C is for the sweep, which passes on what it means.

    Its output is appended to `workdir`/output.txt; its exit status is in `workdir`/exit_status once `poll` or `wait`
    has seen the end.
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
                # Python keeps back what it prints into a file and not its errors: here they stand in the order of time.
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
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
        """`stop`, and waits for the end; also in a signal handler that interrupts `wait`: no lock is taken."""
        self.stop()
        try:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # it had ended
            pass

    def kill(self) -> None:
        """Ends it at once, with all that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _seen(self, status: int | None) -> int | None:
        # A signal ends a run that may go on: no failure of its own.
        if status is not None:
            with write_aside(self._workdir / EXIT_STATUS) as file:
                file.write(f"{max(status, 0)}\n".encode())
        return status


def exit_status(workdir: Path) -> int:
    """The exit status that the last start left, 0 where there is none."""
    try:
        return int((workdir / EXIT_STATUS).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def last_lines(workdir: Path, count: int = LAST_LINES) -> list[str]:
    """The end of a run's output, without empty lines."""
    try:
        with open(workdir / OUTPUT, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 8192, 0))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
