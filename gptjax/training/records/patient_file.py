"""A file to which a run appends. On a full disk, rows may be lost, but the run continues."""

from __future__ import annotations

import os

from absl import logging


class PatientFile:
    """Appends to a file. Bytes that the system does not accept wait in memory, in order.

    The file is unbuffered, so that the number of bytes written before the disk was full is known. The next `append`
    continues after them, so the file is complete once there is room again. Each outage is logged once.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._file = open(path, "ab", buffering=0)
        self._waiting = bytearray()
        self._refused = False

    def append(self, record: bytes) -> None:
        """Writes the waiting bytes, then `record`. What cannot be written waits in memory. Raises no OSError."""
        self._waiting += record
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            if not self._refused:
                logging.error(
                    "cannot write %s (%s): its rows are kept in memory, the run continues",
                    self._path,
                    error.strerror,
                )
            self._refused = True
        else:
            self._refused = False

    def close(self) -> None:
        """Tries once more to write the waiting bytes, and logs how many bytes are lost."""
        self.append(b"")
        if self._waiting:
            logging.error("the last %d bytes of %s are lost", len(self._waiting), self._path)
            self._waiting.clear()
        try:
            self._file.close()
        except OSError as error:  # network file systems may refuse here what they accepted before
            logging.error("cannot close %s (%s): its last rows may be lost", self._path, error.strerror)
