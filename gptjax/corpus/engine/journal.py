"""The journal of an attempt: the document that it is at, on disk, so that it is known when its process ends there.

A document may end the process that reads it: a library crashes on it, it needs more memory than there is, or it is
never done. The next attempt at the task is told at which documents earlier ones ended, and leaves out those at which
STRIKES ended.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

FILE = "journal"  # in the attempt's folder
STRIKES = 3  # attempts that may end at a document, or at a task, before it is given up
_LENGTH_BYTES = 8
_ROWS = re.compile(r"rows (\d+)-(\d+)")
TIME_LIMIT = "no end in sight: longer than max_document_seconds"


class Journal:
    """Notes where a task is.

    A place is any text that is the same in every attempt: the address of a page, some rows of a file.

    Args:
      path: its file; None: nothing is noted.
      ends: place → how the processes ended that were there in earlier attempts.
      seconds: the process is killed if it is at one place for longer; 0: never. A signal does it, without a handler, so
        that it also ends a loop in a library that never returns to Python.

    Attributes:
      set_aside: place → how the process ended there, of the places at which STRIKES attempts ended.
    """

    def __init__(self, path: Path | None = None, ends: Mapping[str, Sequence[str]] | None = None, seconds: float = 0):
        self._ends = ends or {}
        self.set_aside = {place: hows[-1] for place, hows in self._ends.items() if len(hows) >= STRIKES}
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        is_main = threading.current_thread() is threading.main_thread()
        self._seconds = seconds if is_main and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL else 0
        self._timer = (0.0, 0.0)  # when it was started, and the seconds that are allowed
        self.place = ""

    def begin(self, place: str, share: float = 1) -> bool:
        """Notes that the work on a place begins; False, and nothing, if the place is to be left out.

        share: how many times the allowed seconds it may take.
        """
        if place in self.set_aside:
            return False
        self.place = place
        if self._file is not None:
            entry = place.encode("utf-8", "surrogatepass")
            os.pwrite(self._file, len(entry).to_bytes(_LENGTH_BYTES, "little") + entry, 0)
        if self._seconds:
            self._start_timer(self._seconds * share)
        return True

    def end(self) -> None:
        """Notes that the task is at no document."""
        if self.place:
            self.begin("")
        if self._seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._timer = 0, 0

    def _start_timer(self, seconds: float) -> None:
        """Starts the timer, unless it runs already and less than a tenth of its time is over. Few of many short
        documents then pay for a system call."""
        now, (started, allowed) = time.monotonic(), self._timer
        if allowed != seconds or now - started > seconds / 10:
            signal.setitimer(signal.ITIMER_REAL, seconds * 1.1)
            self._timer = now, seconds

    def has_ended(self, place: str) -> bool:
        """Whether an earlier attempt ended at this place."""
        return place in self._ends

    def close(self) -> None:
        self.end()
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_place(path: Path) -> str:
    """The place that a journal notes; '' if it notes none, or if there is no journal."""
    try:
        noted = path.read_bytes()
        length = int.from_bytes(noted[:_LENGTH_BYTES], "little")  # what follows is the end of a longer place before
        return noted[_LENGTH_BYTES:][:length].decode("utf-8", "surrogatepass")
    except (OSError, UnicodeDecodeError):
        return ""


# --- Rows of a file as places -----------------------------------------------------------------------------------------


def rows_place(start: int, end: int) -> str:
    """The place of the rows from `start` to before `end`."""
    return f"rows {start}-{end}"


def rows_set_aside(journal: Journal) -> dict[int, str]:
    """row → how the process ended there, of the single rows that are to be left out."""
    places = ((_ROWS.fullmatch(place), how) for place, how in journal.set_aside.items())
    return {int(rows[1]): how for rows, how in places if rows and int(rows[2]) == int(rows[1]) + 1}
