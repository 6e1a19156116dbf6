"""Processes within a task, for a stage that is one task only: they start when they are needed, and end with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any


class Processes:
    """A context manager whose `map` is like the built-in one."""

    def __init__(self, number: int):
        self._number = number
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        if self._number == 1:
            return map(function, *iterables)
        if self._executor is None:
            spawn = multiprocessing.get_context("spawn")  # threads of Arrow do not survive a fork
            self._executor = ProcessPoolExecutor(self._number, spawn, _end_with_parent)
        return self._executor.map(function, *iterables)


def _end_with_parent() -> None:
    """Ends this process when its task's process is killed."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)
