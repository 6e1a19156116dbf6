"""A file that is appended to for the length of a run: a full disk costs figures, never the run."""

from __future__ import annotations

import os

from absl import logging


class PatientFile:
    """An appended file whose bytes wait in memory, in order, for as long as the system refuses them.

    Unbuffered, so that it is known how many bytes of a record went out before a disk was full: the next `append` goes
    on behind them, and once there is room again the file is what it would have been. Each outage is logged once.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._file = open(path, "ab", buffering=0)
        self._waiting = bytearray()
        self._refused = False

    def append(self, record: bytes) -> None:
        """Writes what waits and then `record`; both are in the file on return, or wait. Raises no OSError."""
        self._waiting += record
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            if not self._refused:
                logging.error(
                    "cannot write %s (%s): its rows are kept in memory, the run goes on", self._path, error.strerror
                )
            self._refused = True
        else:
            self._refused = False

    def close(self) -> None:
        """A last attempt at what waits; what is refused again is lost, and the log says so."""
        self.append(b"")
        if self._waiting:
            logging.error("the last %d bytes of %s are lost", len(self._waiting), self._path)
            self._waiting.clear()
        try:
            self._file.close()
        except OSError as error:  # network file systems may refuse here what they accepted before
            logging.error("cannot close %s (%s): its last rows may be lost", self._path, error.strerror)
