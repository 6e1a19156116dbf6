"""Runs tasks in processes of this machine. If a process dies, its task is reported as lost and a new process starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from gptjax.corpus.engine.journal import TIME_LIMIT
from gptjax.corpus.engine.run import KILLED, Failure, lost

LEAVE_SECONDS = 10  # seconds for a process that has closed its pipe to end
SPAWN = multiprocessing.get_context("spawn")  # threads of Arrow and SentencePiece do not survive a fork


class LocalProcesses:
    """An executor of `workers` processes, started when first needed. A context manager: they end with it.

    Each task has a process to itself while it runs, so that it is known whose worker was lost
    (`concurrent.futures` gives up all that are under way when one dies).
    """

    def __init__(self, workers: int):
        self._idle = [_Worker() for _ in range(workers)]

    def __enter__(self) -> LocalProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._idle:
            worker.stop()

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        waiting = deque(enumerate(items))
        busy: dict[Any, tuple[_Worker, int]] = {}  # by their connections
        try:
            while waiting or busy:
                while waiting and self._idle:
                    worker = self._idle.pop()
                    index, item = waiting.popleft()
                    busy[worker.give((function, item))] = worker, index
                for connection in wait(list(busy)):
                    worker, index = busy.pop(connection)
                    outcome = worker.take()
                    self._idle.append(worker)
                    yield index, outcome
        finally:
            for worker, _ in busy.values():
                worker.stop()
                self._idle.append(worker)


class _Worker:
    """A process that runs calls (function, item) from a pipe; a new process replaces one that died."""

    def __init__(self):
        self._process: BaseProcess | None = None
        self._connection: Connection

    def give(self, call: tuple[Callable, Any]) -> Connection:
        """Starts a call; returns the connection that becomes readable when the call or the process has ended."""
        if self._process is not None:
            try:
                self._connection.send(call)
                return self._connection
            except OSError:  # the process died while idle
                self.stop()
        self._connection, theirs = SPAWN.Pipe()
        self._process = process = SPAWN.Process(target=_serve, args=(theirs,))
        process.start()
        theirs.close()
        self._connection.send(call)
        return self._connection

    def take(self) -> Any:
        """The result of the call; a Failure if the process died."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return self._how_it_ended()

    def _how_it_ended(self) -> Failure:
        assert self._process is not None
        self._process.join(LEAVE_SECONDS)
        status = self._process.exitcode
        self.stop()
        if status is None or status == -signal.SIGKILL:
            return lost(KILLED)
        if status == -signal.SIGALRM:
            return lost(TIME_LIMIT)
        return lost(_signal_name(-status) if status < 0 else f"exit status {status}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the driver, which stops its workers
    threading.Thread(target=_end_with_driver, daemon=True).start()
    while True:
        try:
            function, item = connection.recv()
        except EOFError:
            return
        connection.send(function(item))


def _end_with_driver() -> None:
    """Ends the worker when its driver is killed, even within a long task."""
    if (driver := multiprocessing.parent_process()) is not None:
        driver.join()
    os._exit(1)
