"""Waits for other processes and threads by a condition, never for a fixed time.

The one ceiling is for what hangs. It is so high that a machine busy with other things does not reach it.
"""

import time

PATIENCE = 600.0  # seconds


def until(condition, process=None, pause=0.01):
    """Returns when `condition()` holds; fails when the process that should bring it about has ended before.

    pause: seconds between two looks; 0 for what lasts milliseconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None or condition(), "the process ended by itself"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(pause)
