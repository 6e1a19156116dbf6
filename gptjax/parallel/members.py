"""Several processes as one run: the functions with which a command joins the others, compares facts and ends with them.

    with joined(find_meeting(…)):   all have connected, JAX's distributed runtime is up
        agree(facts)                a difference is refused by all
        check_shared(folder)        all see the same folder
        begin("compiling")          what this process does, reported to all if it hangs there
        …                           an error in any process ends all within seconds; each reports the reason

A single process does none of this. The processes send messages through the hub of process 0 (`hub.py`) and not through
JAX's runtime, which aborts the others when a process is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from gptjax.config import RunError
from gptjax.parallel.meeting import Meeting, Timeouts
from gptjax.parallel.member import Member

_member: Member | None = None


@contextlib.contextmanager
def joined(meeting: Meeting | None, timeouts: Timeouts) -> Iterator[None]:
    """A context in which the processes of a meeting are one run. Enter it before the first use of a device.

    Args:
      meeting: from `find_meeting`; None: this is the only process.

    Raises:
      ConfigError: process 0 cannot be reached; or in process 0, the port cannot be used.
      RunError: not all processes connected in time; or, while inside, another process failed or was lost.
    """
    global _member
    if meeting is None:
        yield
        return
    member = Member(meeting, timeouts)
    try:
        _member = member
        member.join()
        yield
        member.leave()
    except BaseException as error:
        cause = member.fail(error)
        if cause is error:
            raise
        raise cause from None
    finally:
        _member = None


def agree(facts: Mapping[str, Any]) -> None:
    """Compares facts (name → JSON value) with those of the other processes, which must call this too.

    Raises:
      ConfigError: the facts differ. Raised in all processes, with names and values.
    """
    if _member is not None:
        _member.agree(facts)


def check_shared(folder: Path, option: str) -> None:
    """Checks that all processes see the folder that process 0 sees. option: the flag that named it, for messages.

    Raises:
      ConfigError: this process does not see it.
    """
    if _member is not None:
        _member.check_shared(folder, option)


def begin(phase: str) -> None:
    """Reports what this process does next. phase: completes "no progress while …", for example 'opening the data'."""
    if _member is not None:
        _member.begin(phase)


def wait_for_all() -> None:
    """Waits until all processes have called this.

    Call it before operations in which JAX makes processes wait for each other: JAX waits only minutes for a late one.
    """
    agree({})


def meet_devices() -> None:
    """Makes all processes exchange their devices at the same time, since JAX does not wait long for a late process."""
    if _member is not None:
        _member.begin("looking for the devices of all processes")
        try:
            jax.devices()
        except RuntimeError as error:
            text = str(error).partition("\n")[0]
            raise RunError(f"JAX could not exchange the devices of all processes: {text}") from error


def end_all(error: RunError) -> BaseException:
    """Ends all processes of the run because of this process's error. Any thread may call it.

    Returns:
      The error that this process must report: this one, or the reason for which another process has ended the run.
    """
    return error if _member is None else _member.end_all(error)


def count_batch() -> None:
    """Reports that this process puts another batch on its devices."""
    if _member is not None:
        _member.batches += 1
