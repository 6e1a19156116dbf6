"""Runs the stages of a road, and remembers which are done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from gptjax.config import ConfigError, RunError
from gptjax.display.formatting import duration_text
from gptjax.display.terminal import Console
from gptjax.roads.completion import missing
from gptjax.roads.definition import Stage
from gptjax.roads.figures import figures_of
from gptjax.roads.markers import DONE, STARTED, Marker, read_marker, write_marker

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def walk(console: Console, workdir: Path, stage: Stage, key: str, again: bool, overwrite: bool) -> None:
    """Runs a stage unless it is done.

    Args:
      key: of the stage, by `keys_of`.
      again: run it also if it is done.
      overwrite: remove what the stage made by another command, and with `again` also what it made by this one.

    Raises:
      ConfigError: the stage was made by another command, or of something else.
      RunError: its command failed.
      Stopped: a signal asked the road to stop.
    """
    marker = read_marker(workdir, stage)
    if marker and marker.key == key and marker.state == DONE and is_there(stage) and not again:
        figures = f": {marker.figures}" if marker.figures else ""
        console.print(f"done before, in {duration_text(marker.seconds)}{figures}", style="dim")
        return
    seconds = marker.seconds if marker and marker.key == key and marker.state == STARTED else 0.0
    if marker and (marker.key != key or (again and overwrite)):
        make_room(console, workdir, stage, marker, overwrite)
    console.print(stage.text, style="bold", soft_wrap=True)
    write_marker(workdir, stage, Marker(key, STARTED, stage.text, seconds))
    started = time.monotonic()
    status, asked_to_stop = run(stage)
    seconds += time.monotonic() - started
    problem = missing(stage) if status == 0 else ""
    if status == 0 and not problem:
        write_marker(workdir, stage, Marker(key, DONE, stage.text, seconds, figures_of(stage)))
    else:
        write_marker(workdir, stage, Marker(key, STARTED, stage.text, seconds))
    if asked_to_stop:
        raise Stopped(asked_to_stop, f"stopped in stage {stage.name}; the same command goes on")
    if status or problem:
        what = f"is not complete: {problem}" if problem else ended(status)
        raise RunError(f"stage {stage.name} {what}. Give the same command again when the cause is gone")


class Stopped(Exception):
    """A signal asked the road to stop."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.number = number


def ended(status: int) -> str:
    return f"ended with exit status {status}" if status > 0 else f"was ended by {signal.Signals(-status).name}"


def run(stage: Stage) -> tuple[int, int]:
    """Runs the command of a stage, on this terminal.

    Ctrl-C reaches the command from the terminal. SIGTERM and SIGHUP are passed on to it, so that it can save.

    Returns:
      Its exit status, negative if a signal ended it, and the signal that this process has received meanwhile, or 0.
    """
    sys.stdout.flush()
    received = 0
    with subprocess.Popen(stage.arguments, stdin=subprocess.PIPE if stage.lines else None) as process:

        def take(number: int, frame: FrameType | None) -> None:
            nonlocal received
            received = number
            if number != signal.SIGINT:
                process.send_signal(number)

        handlers = {number: signal.signal(number, take) for number in SIGNALS}
        try:
            process.communicate("".join(f"{line}\n" for line in stage.lines).encode() if stage.lines else None)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return process.returncode, received


def make_room(console: Console, workdir: Path, stage: Stage, marker: Marker, overwrite: bool) -> None:
    """Removes what another command of this stage has made, if `overwrite` allows it.

    Raises:
      ConfigError: it does not.
    """
    made = Path(stage.makes) if stage.makes else None
    if made is None or not made.exists():
        return
    what = "the files that it reads" if marker.command == stage.text else f"its command, which was: {marker.command}"
    if not overwrite:
        raise ConfigError(
            f"stage {stage.name}: {what} changed since {made} was made; --overwrite removes {made} and makes it again, "
            "and another --workdir keeps it"
        )
    inside = Path(os.path.realpath(made)).is_relative_to(Path(os.path.realpath(workdir)))
    if not inside or made.is_symlink():
        raise ConfigError(f"stage {stage.name}: {made} is not inside --workdir={workdir}; remove it yourself")
    console.print(f"removing {made}", style="dim")
    shutil.rmtree(made) if made.is_dir() else made.unlink()


def is_there(stage: Stage) -> bool:
    return not stage.makes or Path(stage.makes).exists()


def is_done(workdir: Path, stage: Stage, keys: dict[str, str]) -> bool:
    marker = read_marker(workdir, stage)
    return bool(marker and marker.key == keys[stage.name] and marker.state == DONE and is_there(stage))
