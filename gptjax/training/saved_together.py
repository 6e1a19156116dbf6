"""A save that several processes make together: when one of them cannot go on, all give it up within a second.

Orbax's processes wait for each other several times in every save, for minutes, and one whose disk is full does not tell
the others. Here it leaves a note at JAX's coordination service, and whoever waits looks for that note.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Callable
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.futures import signaling_client
from orbax.checkpoint._src.futures.synchronization import OperationIdGenerator

from gptjax.config import RunError

_PAUSE = 0.5  # seconds between two looks for a note


class SaveFailedElsewhere(RunError):
    """Another process could not write its part of a checkpoint; the message names it and the reason."""


def start_together(
    start: Callable[[], ocp.AsyncResponse], describe: Callable[[BaseException], str]
) -> ocp.AsyncResponse:
    """Calls `start`, which starts a save, in all processes; each calls this for its next save at the same time.

    If the save fails in one process, the others' saves raise SaveFailedElsewhere.

    Args:
      describe: why a save failed, in one line.
    """
    if jax.process_count() == 1:
        return start()
    client = _client()
    client.begin(f"gptjax/failed_save/{int(OperationIdGenerator.get_current_operation_id()) + 1}")
    try:
        response = start()
    except BaseException as error:
        client.leave_note(describe(error))
        raise

    def tell_others(ended: Any) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            client.leave_note(describe(error))

    # Not after `response.result()`: it returns only when this process waits for the others no more, in any of its
    # parts. Orbax calls a callback of its own only after a success.
    response._thread_runner._future.add_done_callback(tell_others)
    return response


class _WatchfulClient(signaling_client.JaxDistributedSignalingClient):
    """Orbax's way to wait for other processes, until one of them leaves a note."""

    def begin(self, note: str) -> None:
        """A save begins. note: the key at JAX's service for the reason why it failed, the same in all processes."""
        self._note = note

    def leave_note(self, reason: str) -> None:
        text = f"process {jax.process_index()} on {socket.gethostname()} could not write its part: {reason}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process has left one, or this one has
            self.key_value_set(self._note, text)

    def wait_at_barrier(self, key: str, **options: Any) -> None:
        self._wait(functools.partial(super().wait_at_barrier, key, **options))

    def blocking_key_value_get(self, key: str, timeout_secs: int) -> str:
        return self._wait(functools.partial(super().blocking_key_value_get, key, timeout_secs))

    def _wait(self, wait: Callable[[], Any]) -> Any:
        """The result of `wait`. Raises SaveFailedElsewhere if a note appears first."""
        ended, results, errors = threading.Event(), [], []

        def run() -> None:
            try:
                results.append(wait())
            except BaseException as error:
                errors.append(error)
            ended.set()

        threading.Thread(target=run, daemon=True).start()  # nothing can end it before its time, so nobody waits for it
        while not ended.wait(_PAUSE):
            if (reason := self.key_value_try_get(self._note)) is not None:
                raise SaveFailedElsewhere(reason)
        if errors:
            raise errors[0]
        return results[0]


@functools.cache
def _client() -> _WatchfulClient:
    """The client of this process, which Orbax uses from now on."""
    client = _WatchfulClient()
    signaling_client.get_signaling_client = lambda: client
    return client
