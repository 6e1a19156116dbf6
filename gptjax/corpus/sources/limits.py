"""Limits on the memory and time that one file may take. Each limit is an option of the kinds of source that it
concerns.

A file that exceeds a limit is counted and skipped (or cut, if that loses nothing), so that a decompression bomb is
harmless. These numbers bound the memory of a reader, whatever a file contains.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gptjax.display.formatting import MEGABYTE

# Limits for finding, opening and decompressing a file.
READING: dict[str, Any] = {
    "links": "inside",  # symbolic links that are followed: inside (those that stay within the source) | all
    "max_file_bytes": 10**12,  # bytes after decompression; the rest is not read
    "max_ratio": 100,  # ratio of decompressed to compressed bytes, checked after RATIO_FREE_BYTES; text is below 30
    "max_window_bytes": 1 << 27,  # window of xz and zstd: 128 MiB is --long=27; a --long=31 file needs 1 << 31
    "max_line_bytes": 16 * MEGABYTE,  # bytes of a record, such as a line; parsed JSON may take thirty times as much
    "max_document_bytes": 64 * MEGABYTE,  # bytes of a file that is one document; a longer one is cut after a line
}
RATIO_FREE_BYTES = 16 * MEGABYTE  # small files may decompress by any ratio

# Limits for a page of HTML, before and during extraction.
PAGES = {
    "max_html_bytes": 4 * MEGABYTE,
    "max_html_depth": 250,  # depth of nested elements; browsers stop at 512
    "max_page_seconds": 20.0,  # the last resort, for pages that are slow without being large or deep
}
AGAIN_SECONDS = 0.05  # seconds after which an exceeded limit is signalled again


class TimeIsUp(BaseException):
    """A time_limit was exceeded. Not an Exception, so that libraries which catch exceptions do not catch it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeIsUp after this much processor time, however busy the machine is.

    It uses signals, which only reach main threads, where workers run tasks; other threads have only limits of size and
    depth.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    inside = True

    def stop(*_: object) -> None:
        if inside:
            raise TimeIsUp

    before = signal.signal(signal.SIGPROF, stop)
    # Repeated, because an exception raised in __del__ or a callback of the garbage collector is lost.
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
