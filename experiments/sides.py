"""Lets programs that are compared take turns, each in a separate process.

The comparing program uses `Side`: a process that waits for its turn sleeps on its standard input, so the threads of two
sides never run at once. A side that trains uses `take_turns`. They exchange lines: facts in JSON once a side is warm,
then a request and an answer in JSON per turn.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Side:
    """A process that answers each line with a line of JSON."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        """environment: None means that of this process."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, line: Any) -> dict:
        """The answer to a line. Raises RuntimeError if the process has ended."""
        print(line, file=self._process.stdin, flush=True)
        return self.read()

    def read(self) -> dict:
        """The next line that the process prints. Raises RuntimeError if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            command = " ".join(map(str, self._process.args[1:]))
            raise RuntimeError(f"{command} ended early: exit code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def take_turns(steps: Callable[[int], float], facts: dict[str, Any]) -> None:
    """Warms up, prints the facts, and then takes as many steps as each line of standard input says.

    steps: takes some steps and returns the last loss.
    """
    facts["first_loss"] = steps(1)
    steps(1)
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        clock, used = time.perf_counter(), processor_seconds()
        loss = steps(int(line))
        seconds = {"seconds": time.perf_counter() - clock, "processor_seconds": processor_seconds() - used}
        print(json.dumps({**seconds, "loss": loss}), flush=True)


def processor_seconds() -> float:
    """What this process has used so far, over all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
