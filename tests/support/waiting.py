"""Waits for other processes and threads by a condition, never for a fixed time.

A limit ends what hangs. It is so high that a busy machine does not reach it.
"""

import time

PATIENCE = 600.0  # seconds


def until(condition, process=None, pause=0.01):
    """Returns once `condition()` holds; fails if the process that should make it hold ends first.

    pause: seconds between two checks; 0 for what lasts milliseconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None or condition(), "the process ended by itself"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(pause)
