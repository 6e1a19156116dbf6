"""Processes of one program that import its libraries once: a server imports them, then forks for each process.

A forked process is like one that was started by itself: it has its own arguments and output, and ends as Python does.
The program's main part begins with `serve()`, and nothing before that line starts threads or computes with JAX.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def serve() -> None:
    """Returns in every new process, with its arguments in sys.argv; in the server, never."""
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            ended, status = os.waitpid(request["pid"], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            for descriptor, name in enumerate([os.devnull, request["stdout"], request["stderr"]]):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), descriptor)
            sys.argv[1:] = request["arguments"]
            return
        print(pid, flush=True)
    os._exit(0)


@functools.cache
def _server(program: Path) -> subprocess.Popen:
    """Ends with this process, which closes its input."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(program)], env=environment, text=True, **pipes)


class ForkedProcess:
    """`python PROGRAM ARGUMENTS`, with the methods of subprocess.Popen."""

    def __init__(self, program: Path, arguments: list[str]):
        self._program, self._folder = program, tempfile.TemporaryDirectory()
        self._output = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        request = {path.name: str(path) for path in self._output} | {"arguments": arguments}
        self.returncode: int | None = None
        self._said: tuple[str, str] | None = None
        self.pid = self._ask(request)

    def _ask(self, request: dict) -> int | None:
        server = _server(self._program)
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask({"pid": self.pid})
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            time.sleep(0.02)
        if self._said is None:
            out, err = (path.read_text() for path in self._output)
            self._said = out, err
            self._folder.cleanup()
        return self._said
