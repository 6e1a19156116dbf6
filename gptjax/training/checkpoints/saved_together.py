"""A save by several processes: if one of them cannot continue, all of them abandon the save within a second.

Orbax's processes wait for each other several times per save, for minutes, and a process whose disk is full does not
notify the others. Here it writes a note to JAX's coordination service, and waiting processes check for such a note.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.futures import signaling_client
from orbax.checkpoint._src.futures.synchronization import OperationIdGenerator

from gptjax.config import RunError

_PAUSE_MS = 500  # milliseconds between two checks for a note


class SaveFailedElsewhere(RunError):
    """Another process could not write its part of a checkpoint; the message names it and the reason."""


def start_together(
    start: Callable[[], ocp.AsyncResponse], describe: Callable[[BaseException], str]
) -> ocp.AsyncResponse:
    """Calls `start`, which starts a save. All processes must call this for the same save, and finish it before the next
    one.

    If the save fails in one process, the saves of the others raise SaveFailedElsewhere.

    Args:
      describe: turns an error into one line that says why a save failed.
    """
    if jax.process_count() == 1:
        return start()
    client = _client()
    client.begin(int(OperationIdGenerator.get_current_operation_id()) + 1)
    try:
        response = start()
    except BaseException as error:
        client.leave_note(describe(error))
        raise

    def tell_others(ended: Any) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            client.leave_note(describe(error))

    # Not after `response.result()`, which returns only when all parts of the save have ended: those that this process
    # could write wait for the others. Orbax itself calls back only after a success.
    response._thread_runner._future.add_done_callback(tell_others)
    return response


class _Client(signaling_client.JaxDistributedSignalingClient):
    """Orbax's client for waiting for other processes, which stops waiting if one of them writes a note.

    JAX's own barriers cannot be left early, so these barriers use values at its coordination service.
    """

    _folder = ""

    def begin(self, save: int) -> None:
        """Begins a save. save: a number that is the same in all processes and different for each save."""
        if self._folder and jax.process_index() == 0:
            self.key_value_delete(self._folder)
        self._folder = f"gptjax/save/{save}"

    @property
    def _note(self) -> str:
        return f"{self._folder}/note"

    def leave_note(self, reason: str) -> None:
        text = f"process {jax.process_index()} on {socket.gethostname()} could not write its part: {reason}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # there already is a note
            self.key_value_set(self._note, text)

    def wait_at_barrier(self, key: str, *, timeout_secs: int, process_ids: Sequence[int] | None = None) -> None:
        """Returns when all processes have called this, or all of `process_ids`; raises as `blocking_key_value_get`."""
        all_here, expected = f"{self._folder}/{key}/all", len(process_ids or range(jax.process_count()))
        if self._client.key_value_increment(f"{self._folder}/{key}/count", 1) == expected:
            self.key_value_set(all_here, "")
        self.blocking_key_value_get(all_here, timeout_secs)

    def blocking_key_value_get(self, key: str, timeout_secs: int) -> str:
        """The value, as soon as a process has set it.

        Raises:
          SaveFailedElsewhere: a process has written a note.
          TimeoutError: neither happened in time.
        """
        deadline = time.monotonic() + timeout_secs
        while time.monotonic() < deadline:
            if (reason := self.key_value_try_get(self._note)) is not None:
                raise SaveFailedElsewhere(reason)
            try:
                return str(self._client.blocking_key_value_get(key, _PAUSE_MS))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        raise TimeoutError(f"{key} has not been set within {timeout_secs} s")


@functools.cache
def _client() -> _Client:
    """The client of this process, which Orbax uses from then on."""
    client = _Client()
    signaling_client.get_signaling_client = lambda: client
    return client
