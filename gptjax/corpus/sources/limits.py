"""Limits of what one file may cost. Each limit is an option of the kinds of source that it concerns.

A file that exceeds a limit is counted and skipped (or cut, where that loses nothing), so that a bomb is harmless.
These numbers bound the memory of a reader, whatever a file contains.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gptjax.formatting import MEGABYTE

# Of a file, as it is found, opened and decompressed.
READING: dict[str, Any] = {
    "links": "inside",  # symbolic links that are followed: inside (those that stay within the source) | all
    "max_file_bytes": 10**12,  # decompressed; the rest is not read
    "max_ratio": 100,  # decompressed bytes to compressed ones, once RATIO_FREE_BYTES are out; text is below 30
    "max_window_bytes": 1 << 27,  # that xz and zstd may look back: 128 MiB is --long=27; a --long=31 file needs 1 << 31
    "max_line_bytes": 16 * MEGABYTE,  # of a record, such as a line; parsed, JSON may take thirty times that
    "max_document_bytes": 64 * MEGABYTE,  # of a file that is one document: longer ones are cut after a line
}
RATIO_FREE_BYTES = 16 * MEGABYTE  # small files may be of one byte

# Of a page of HTML, before and while its text is extracted.
PAGES = {
    "max_html_bytes": 4 * MEGABYTE,
    "max_html_depth": 250,  # of elements within elements; browsers stop at 512
    "max_page_seconds": 20.0,  # the last resort: what is slow without being large or deep
}
AGAIN_SECONDS = 0.05  # after which a limit that was met is signalled again


class TimeIsUp(BaseException):
    """Of a time_limit. Not an Exception: libraries that go on after one must not go on after this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp after so much of the processor's time: how busy the machine is does not matter.

    Signals reach main threads alone, which is where workers run tasks; in others there is no limit but size and depth.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    inside = True

    def stop(*_: object) -> None:
        if inside:
            raise TimeIsUp

    before = signal.signal(signal.SIGPROF, stop)
    # Once is not enough: what is raised while Python tidies up (__del__, a callback of the collector) is lost.
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
