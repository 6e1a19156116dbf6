"""One process of a run: its connection to process 0, its part of JAX's runtime, and how it ends with the others.

A member sends messages to the hub of process 0 (`hub.py`): first who it is, then heartbeats and facts to compare, and
at the end that it leaves or why it failed. One thread listens to the hub, and one sends heartbeats. When the hub
reports that the run is over, the program has `GRACE` seconds to return. Then the process exits, even if its main thread
waits in JAX for a lost process forever.
"""

from __future__ import annotations

import atexit
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from gptjax.config import ConfigError, RunError
from gptjax.display.differences import without_line_breaks
from gptjax.display.terminal import exit_at_once, print_last, visible
from gptjax.errors import EndedBySignal, error_with, setting_text
from gptjax.parallel import relay
from gptjax.parallel.aborts import delay_aborts
from gptjax.parallel.hub import RESUME_HINT, Channel, Hub, beat_seconds, is_loopback, listen
from gptjax.parallel.meeting import Meeting, Timeouts

GRACE = 3.0  # seconds for the main thread to return after the end of the run; shorter than aborts.DELAY
EXIT_TIMEOUT = 10.0  # further seconds to print the reason and to exit in order
CAUSE_TIMEOUT = 2.0  # seconds within which the hub reports a lost process, after the errors that the loss causes
SHOWN_LATE = 10.0  # seconds that a network file system may take to show a new file


class Member:
    """This process among the others.

    Attributes:
      reason: why the run is over, once another process has ended it.
      batches: number of batches that this process has put on its devices.
      phase: the current phase of this process, and how many phases it has begun.
    """

    def __init__(self, meeting: Meeting, timeouts: Timeouts):
        self._meeting, self._timeouts = meeting, timeouts
        self.reason: str | None = None
        self.batches = 0
        self.phase = ("starting", 0)
        self._ended_with = 1  # the exit status that the hub has sent with the reason
        self._over = threading.Event()
        self._known = threading.Event()  # set when the hub has reported the end of the run, or is gone itself
        self._leaving = False
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._hub: Hub | None = None
        self._connected: Channel | None = None
        self._relay: subprocess.Popen | None = None
        self._timer: threading.Timer | None = None
        # If set, the process exits at once with this status: JAX's shutdown would wait for lost processes.
        self._status: int | None = None
        atexit.register(self._exit_in_time)

    # --- Joining -----------------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Waits until all have connected and JAX's runtime is up."""
        meeting, seconds = self._meeting, self._timeouts.initialization
        others = meeting.num_processes - 1
        awaited = f"{others} other process{'es' * (others > 1)}" if meeting.process == 0 else "process 0"
        _say(
            f"process {meeting.process} of {meeting.num_processes}: waiting for {awaited} at {meeting.address}, "
            f"for {seconds:g} s at most (--initialization_timeout)"
        )
        deadline = time.monotonic() + seconds
        if meeting.process == 0:
            server = listen(meeting.host, meeting.port)
            timeouts = self._timeouts
            self._hub = Hub(
                server, meeting.num_processes, free_port(), timeouts.heartbeat, timeouts.startup, timeouts.batch
            )
        self._connected = self._connect(deadline)
        for work in (self._listen, self._beat):
            threading.Thread(target=work, daemon=True).start()
        start = self._answer(deadline)
        self._token = start["token"]
        self._start_jax(start["service_port"])

    @property
    def _channel(self) -> Channel:
        assert self._connected is not None  # set by `join`
        return self._connected

    def _connect(self, deadline: float) -> Channel:
        """Returns a channel to the hub, once the hub has welcomed this process."""
        meeting, seconds = self._meeting, self._timeouts.initialization
        # On the host itself, its own name may resolve to an address that does not work.
        host = meeting.host if meeting.process or is_loopback(meeting.host) else "localhost"
        obstacle = None
        while True:
            remaining = deadline - time.monotonic()
            try:
                channel = Channel(socket.create_connection((host, meeting.port), max(min(remaining, 10.0), 0.1)), 10.0)
                channel.send("hello", process=meeting.process, of=meeting.num_processes, host=socket.gethostname())
                answer = channel.receive()
                if answer and answer["kind"] == "welcome":
                    channel.silence(self._timeouts.heartbeat)
                    return channel
                if answer and answer["kind"] == "ended":
                    raise ConfigError(answer["reason"])
                obstacle = "what answers there is not process 0 of a run"
            except ConfigError:
                raise
            except ValueError:
                obstacle = "what answers there is not process 0 of a run"
            except OSError as error:
                if obstacle is None and isinstance(error, socket.gaierror):
                    _say(f"{host}: {error.strerror}; trying again")
                obstacle = error.strerror or str(error)
            if remaining <= 0:
                raise ConfigError(
                    f"--coordinator={meeting.address}: process 0 could not be reached there within {seconds:g} s "
                    f"(--initialization_timeout): {obstacle}"
                )
            time.sleep(min(0.5, max(remaining, 0.0)))

    def _start_jax(self, service_port: int) -> None:
        meeting = self._meeting
        delay_aborts()
        # Python's resource tracker frees the shared memory of data loaders, but would print a warning after our last
        # message.
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")
        os.environ["no_grpc_proxy"] = "127.0.0.1,localhost"  # the only addresses that JAX's client connects to
        jax.config.update("jax_check_proxy_envs", False)
        jax.config.update("jax_enable_preemption_service", False)  # until there is a step to stop at (interrupt.py)
        bind = f"127.0.0.1:{service_port}" if is_loopback(meeting.host) else None
        if meeting.process == 0:
            port = service_port
        else:
            command = [sys.executable, "-I", "-S", relay.__file__, meeting.host, str(service_port)]
            self._relay = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            assert self._relay.stdout is not None  # it is a pipe
            port = int(self._relay.stdout.readline())
        jax.distributed.initialize(
            f"127.0.0.1:{port}",
            meeting.num_processes,
            meeting.process,
            local_device_ids=meeting.devices,
            cluster_detection_method="deactivate",  # the arguments are complete
            coordinator_bind_address=bind if meeting.process == 0 else None,
            heartbeat_timeout_seconds=int(max(600, 10 * self._timeouts.heartbeat)),  # the hub must notice first
        )

    # --- Together ----------------------------------------------------------------------------------------------------

    def begin(self, phase: str) -> None:
        self.phase = (phase, self.phase[1] + 1)

    def agree(self, facts: Mapping[str, Any]) -> None:
        self.begin("waiting for the others")
        self._channel.send("agree", facts=dict(facts))
        problem = self._answer()["problem"]
        if problem:
            raise ConfigError(problem)

    def check_shared(self, folder: Path, option: str) -> None:
        mark, process = folder / f".seen-{self._token}", self._meeting.process
        try:
            if process == 0:
                mark.touch()
            self.agree({})
            self.begin(f"looking into {option}")
            deadline = time.monotonic() + SHOWN_LATE
            while not mark.exists():
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"{setting_text(option, folder)}: must be the same folder for all processes; process {process} "
                        f"on {socket.gethostname()} does not see what process 0 wrote there"
                    )
                time.sleep(0.1)
            self.agree({})
        finally:
            if process == 0:
                mark.unlink(missing_ok=True)

    def _answer(self, deadline: float | None = None) -> dict[str, Any]:
        """The hub's next answer, which arrives after all processes have sent their facts."""
        while True:
            try:
                return self._answers.get(timeout=0.05)
            except queue.Empty:
                pass
            if self._over.is_set():
                raise self._as_error()
            if deadline is not None and time.monotonic() > deadline and self._hub is not None:
                missing = self._hub.missing()
                self._hub.end(
                    f"process{'es' * (len(missing) > 1)} {', '.join(map(str, missing))} did not connect to "
                    f"{self._meeting.address} within {self._timeouts.initialization:g} s (--initialization_timeout)"
                )
                deadline = None

    def _listen(self) -> None:
        while True:
            try:
                message = self._channel.receive()
            except TimeoutError:
                reason = (
                    f"process 0 has been silent for {self._timeouts.heartbeat:g} s (--heartbeat_timeout): it, "
                    f"its machine or the network hangs; {RESUME_HINT}"
                )
                if not self._leaving:  # if it was only stopped, it learns the reason, and does not blame this process
                    self._channel.send("failed", reason=reason, status=1)
                return self._end(reason)
            except ValueError:
                message = None
            if message is None:
                self._known.set()
                return self._end(
                    f"process 0 is gone: it was killed (out of memory?), or its machine failed; {RESUME_HINT}"
                )
            if message["kind"] == "ended":
                self._channel.send("heard")
                self._known.set()
                return self._end(message["reason"], message["status"])
            if message["kind"] != "beat":
                self._answers.put(message)

    def _beat(self) -> None:
        while not self._leaving:
            phase, begun = self.phase
            self._channel.send("beat", batches=self.batches, phase=phase, begun=begun)
            time.sleep(beat_seconds(self._timeouts.heartbeat))

    # --- Ending ------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Waits until all have finished."""
        self.agree({})
        self._leaving = True
        self._channel.send("leave")

    def fail(self, error: BaseException) -> BaseException:
        """Tells the others that this process ends because of this error, or finds that another process caused it.

        Returns:
          The error to raise.
        """
        own = isinstance(error, ConfigError | OSError | KeyboardInterrupt | SystemExit | EndedBySignal)
        if not own:  # a lost process causes errors in the others, wherever they wait for its data
            self._over.wait(self._timeouts.heartbeat if _is_of_xla(error) else CAUSE_TIMEOUT)
            if self._over.is_set():
                error = self._as_error()
        self._leaving = True
        self._status = _exit_status(error)
        self._exit_after(GRACE + EXIT_TIMEOUT)
        if self._connected is not None:
            self._channel.send("failed", reason=_reason(error), status=_status_of_all(error))
            self._known.wait(GRACE)
        if self._hub is not None:
            self._hub.wait_until_heard(GRACE)
        return error

    def end_all(self, error: RunError) -> BaseException:
        """Like `fail`, from any thread. If the run is over already, the main thread or a timer will report why."""
        return self._as_error() if self._over.is_set() else self.fail(error)

    def _as_error(self) -> ConfigError | RunError:
        return error_with(self.reason or "", self._ended_with)

    def _end(self, reason: str, status: int = 1) -> None:
        """Ends this process, since another one has ended the run."""
        if self._leaving:
            return
        self.reason, self._ended_with = reason, status
        self._over.set()
        self._exit_after(GRACE, f"error: {reason}\n")

    def _exit_after(self, seconds: float, message: str = "") -> None:
        """Ends this process after `seconds`, even if its main thread waits forever for a lost process."""

        def exit_now() -> None:
            if message:
                print_last(message)
            exit_at_once(_exit_status(self._as_error()) if self._status is None else self._status)

        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, exit_now)
        self._timer.daemon = True
        self._timer.start()

    def _exit_in_time(self) -> None:
        if self._status is not None:
            exit_at_once(self._status)


def _say(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _is_of_xla(error: BaseException) -> bool:
    return isinstance(error, jax.errors.JaxRuntimeError)


def _reason(error: BaseException) -> str:
    """Why this process ends, as the others report it: all lines of a known error, but only the first line of a bug."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, ConfigError | OSError | RunError):
        return without_line_breaks(str(error))
    return f"{type(error).__name__}: {' '.join(str(error).partition(chr(10))[0].split())}"


def _exit_status(error: BaseException) -> int:
    """The exit status of the commands."""
    if isinstance(error, ConfigError | OSError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return error.status if isinstance(error, RunError) else 1


def _status_of_all(error: BaseException) -> int:
    """The exit status of the other processes of a run that this error has ended."""
    return _exit_status(error) if isinstance(error, ConfigError | RunError) else 1
