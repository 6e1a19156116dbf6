"""Runs tasks on a Ray cluster, or on a local Ray if no cluster is named; needs pip install 'gptjax[ray]'.

RAY_ADDRESS names a cluster (`auto` on one of its machines). All its machines must see the output folder under the same
path and have gptjax installed.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from gptjax.config import ConfigError, RunError

AHEAD = 1000  # maximum number of tasks in Ray's own queue


class RayTasks:
    """A TaskExecutor of Ray tasks with one core each. A context manager; it stops the Ray that it started.

    Args:
      workers: tasks at a time; 0: one per core.

    Raises:
      ConfigError: Ray is not installed, or the cluster that RAY_ADDRESS names cannot be reached.
      RunError: a local Ray does not start.
    """

    def __init__(self, workers: int):
        try:
            import ray
        except ImportError:
            raise ConfigError("--executor=ray: needs pip install 'gptjax[ray]'") from None
        self._ray = ray
        self._workers = workers
        self._started = not ray.is_initialized()
        if self._started:
            local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers or None, "include_dashboard": False}
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
            except ConnectionError as error:
                raise ConfigError(f"--executor=ray: RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
            except Exception as error:  # Ray raises a plain Exception if the machine is too busy
                raise RunError(f"--executor=ray: Ray did not start: {error}") from error

    def __enter__(self) -> RayTasks:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self._ray.shutdown()

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        ray = self._ray
        # The stage counts retries, in the same way for every executor.
        remote = ray.remote(num_cpus=1, max_retries=0)(_call)
        shared = ray.put(function)
        waiting = deque(enumerate(items))
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (self._workers or AHEAD):
                    index, item = waiting.popleft()
                    running[remote.remote(shared, item)] = index
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                yield running.pop(done), self._get(done)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _get(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError):
            return None
        except errors.RaySystemError as error:
            raise RunError(f"Ray failed: {error}") from error


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
