"""The server in process 0 to which all processes of a run connect: it compares facts and detects lost processes.

Its connections carry JSON in both directions, one object per line:

  hello    process → hub   who it is; the first message
  welcome  hub → process   it is part of this run
  start    hub → process   all have connected; the port of JAX's own service
  beat     both ways       "I am alive", every few seconds; a process adds its phase, how many phases it has begun,
                           and how many batches it has put on its devices
  agree    process → hub   facts that must be equal; when all have sent theirs, the hub answers
  agreed   hub → process   how they differ, or '' if they are equal
  failed   process → hub   it ends because of its own error: the reason, and the exit status of all processes
  ended    hub → process   the run is over for all, for this reason, with this exit status
  heard    process → hub   it knows that the run is over
  leave    process → hub   it has finished

If a connection closes without `leave`, the process was killed; the kernel reports that at once. If a process sends
nothing, it hangs or has lost its network.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from gptjax.config import ConfigError
from gptjax.errors import BY_SIGNAL
from gptjax.parallel.agreement import difference

_LONGEST_MESSAGE = 1 << 28  # bytes
_HELLO_TIMEOUT = 10.0  # seconds to wait for a hello: a client that sends none is not part of the run
RESUME_HINT = "the same command resumes from the last checkpoint"


class Channel:
    """JSON objects over a connected socket. Any thread may send, but only one may receive.

    silence: seconds without a message after which `receive` raises TimeoutError.
    """

    def __init__(self, connection: socket.socket, silence: float):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._file, self._lock = connection, connection.makefile("rb"), threading.Lock()
        self.silence(silence)

    def silence(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def send(self, kind: str, **message: Any) -> None:
        """Ignores a closed connection: the receiving thread detects it."""
        data = json.dumps({"kind": kind, **message}).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError:
            pass

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other side is gone.

        Raises:
          TimeoutError: no message came in time.
          ValueError: the data is not a message.
        """
        try:
            line = self._file.readline(_LONGEST_MESSAGE)
        except TimeoutError:
            raise
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None
        message = json.loads(line)
        if not isinstance(message, dict) or "kind" not in message:
            raise ValueError("not a message")
        return message

    def close(self) -> None:
        self._socket.close()


def listen(host: str, port: int) -> socket.socket:
    """Listens at the port; accepts connections only from this machine if the host is a loopback name.

    Raises:
      ConfigError: the port is in use or not permitted.
    """
    try:
        if is_loopback(host):
            return socket.create_server(("127.0.0.1" if host == "localhost" else host, port), family=_family(host))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        what = "is in use on this machine" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigError(
            f"--coordinator={host}:{port}: port {port}, where process 0 meets the others, {what}; choose another"
        ) from None


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@dataclasses.dataclass(frozen=True, order=True)
class ProcessProgress:
    """How far a process has come. All go through the same phases, so that their progress can be compared.

    Attributes:
      begun: number of phases begun. phase: the latest of them.
      batches: number of batches put on its devices.
    """

    begun: int = 0
    batches: int = 0
    phase: str = dataclasses.field(default="starting", compare=False)


def hangs_at_start(progress: Mapping[str, ProcessProgress], limit: float) -> str:
    """Names the processes that are furthest behind, and their phase. progress: by name of the process."""
    last = min(progress.values())
    behind = [name for name, each in progress.items() if each <= last]
    others = ", and the others wait" if len(behind) < len(progress) else ""
    return (
        f"{' and '.join(behind)}: no progress for {limit:g} s while {last.phase}{others} (--startup_timeout; "
        f"raise it if this may take longer); {RESUME_HINT}"
    )


def hangs_at_batch(progress: Mapping[str, ProcessProgress], limit: float) -> str:
    """Names the processes that have put fewer batches on their devices than the others."""
    batches = {name: each.batches for name, each in progress.items()}
    least, most = min(batches.values()), max(batches.values())
    behind = ", ".join(name for name, count in batches.items() if count == least)
    apart = f"{behind} at batch {least}, the others up to batch {most}"
    where = apart if least < most else f"all are at batch {least}"
    return f"no process has started a new batch for {limit:g} s (--batch_timeout): {where}; {RESUME_HINT}"


class Hub:
    """The server, which runs in its own threads.

    Args:
      service_port: where process 0 will start JAX's coordination service.
      heartbeat_timeout: seconds of silence after which a process counts as lost.
      startup_timeout: seconds without a new phase in any process after which a run counts as hanging, until all
        processes have put a batch on their devices; 0: no limit.
      batch_timeout: seconds without a new batch in any process after which a run counts as hanging from then on; 0: no
        limit.
    """

    def __init__(
        self,
        server: socket.socket,
        num_processes: int,
        service_port: int,
        heartbeat_timeout: float,
        startup_timeout: float,
        batch_timeout: float,
    ):
        self._server, self._num_processes, self._service_port = server, num_processes, service_port
        self._heartbeat_timeout = heartbeat_timeout
        self._startup_timeout, self._batch_timeout = startup_timeout, batch_timeout
        self._lock = threading.RLock()
        self._channels: dict[int, Channel] = {}
        self._names: dict[int, str] = {}
        self._facts: dict[int, dict[str, Any]] = {}
        self._progress: dict[int, ProcessProgress] = {}
        self._last_progress = math.inf  # time of the last progress; infinite until all processes have connected
        self._unaware: set[int] = set()  # processes that do not know yet that the run is over
        self._over = threading.Event()
        self._ending: dict[str, Any] = {}  # why the run is over
        for work in (self._accept, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def missing(self) -> list[int]:
        """The processes that have not connected yet."""
        with self._lock:
            return [process for process in range(self._num_processes) if process not in self._channels]

    def wait_until_heard(self, seconds: float) -> None:
        """Waits until every process knows that the run is over, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        while self._unaware - {0} and time.monotonic() < deadline:
            time.sleep(0.01)

    def end(self, reason: str, status: int = 1) -> None:
        """Ends the run for all processes, with this exit status. Only the first reason counts."""
        with self._lock:
            if self._over.is_set():
                return
            self._unaware = set(self._channels)
            self._over.set()
            self._ending = dict(reason=reason, status=status)
            self._broadcast("ended", **self._ending)

    def _broadcast(self, kind: str, **message: Any) -> None:
        with self._lock:
            for channel in self._channels.values():
                channel.send(kind, **message)

    def _accept(self) -> None:
        while True:
            connection = self._server.accept()[0]
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _beat(self) -> None:
        while True:
            time.sleep(beat_seconds(self._heartbeat_timeout))
            self._broadcast("beat")
            self._end_if_it_hangs()

    def _end_if_it_hangs(self) -> None:
        with self._lock:
            still = time.monotonic() - self._last_progress
            progress = {self._names[process]: each for process, each in sorted(self._progress.items())}
        starting = any(not each.batches for each in progress.values())
        limit = self._startup_timeout if starting else self._batch_timeout
        if limit and still > limit:
            self.end((hangs_at_start if starting else hangs_at_batch)(progress, limit))

    def _serve(self, connection: socket.socket) -> None:
        channel = Channel(connection, _HELLO_TIMEOUT)
        try:
            hello = channel.receive() or {}
            process, of, host = int(hello["process"]), int(hello["of"]), str(hello["host"])
            if not 0 <= process < of:
                raise ValueError("a number that no run has")
        except (ValueError, OverflowError, KeyError, TypeError, TimeoutError):
            return channel.close()
        channel.silence(self._heartbeat_timeout)
        name = f"process {process} on {host}"
        if not self._admit(channel, process, of, name):
            return channel.close()
        while True:
            try:
                message = channel.receive()
            except TimeoutError:
                return self.end(
                    f"{name} has been silent for {self._heartbeat_timeout:g} s (--heartbeat_timeout): it, "
                    f"its machine or the network hangs; {RESUME_HINT}"
                )
            except ValueError:
                message = None
            if message is None:
                self._unaware.discard(process)
                return self.end(f"{name} is gone: it was killed (out of memory?), or its machine failed; {RESUME_HINT}")
            if message["kind"] == "leave":
                return None
            self._handle(process, name, message)

    def _admit(self, channel: Channel, process: int, of: int, name: str) -> bool:
        """Whether the process belongs to this run. Once a run is complete, a process of another one cannot end it."""
        with self._lock:
            if of != self._num_processes and not self.missing():
                channel.send(
                    "ended",
                    reason=f"--num_processes={of}: the run that process 0 belongs to has {self._num_processes}, all of "
                    "which have joined: every run needs its own port in --coordinator",
                    status=2,
                )
            elif of != self._num_processes:
                reason = f"--num_processes={self._num_processes} in process 0, {of} in {name}: must be the same in all"
                channel.send("ended", reason=reason, status=2)
                self.end(reason, status=2)
            elif process in self._channels:
                channel.send(
                    "ended",
                    reason=f"--process_id={process}: is already used by {self._names[process]}: every process of a "
                    "run needs its own number, and every run its own port in --coordinator",
                    status=2,
                )
            else:
                channel.send("welcome")
                self._channels[process], self._names[process] = channel, name
                self._progress[process] = ProcessProgress()
                if self._over.is_set():  # it has connected too late to hear of it: process 0, too, is a client
                    self._unaware.add(process)
                    channel.send("ended", **self._ending)
                elif not self.missing():
                    self._last_progress = time.monotonic()
                    self._broadcast("start", service_port=self._service_port, token=secrets.token_hex(8))
                return True
        return False

    def _handle(self, process: int, name: str, message: dict[str, Any]) -> None:
        with self._lock:
            match message["kind"]:
                case "beat":
                    progress = ProcessProgress(message["begun"], message["batches"], message["phase"])
                    if self._progress[process] != progress:
                        self._progress[process], self._last_progress = progress, time.monotonic()
                case "agree":
                    self._facts[process] = message["facts"]
                    if len(self._facts) == self._num_processes:
                        facts, self._facts = self._facts, {}
                        self._broadcast("agreed", problem=difference(facts))
                case "failed":
                    what = "was" if message["status"] > BY_SIGNAL else "failed:"
                    self.end(f"{name} {what} {message['reason']}", message["status"])
                case "heard":
                    self._unaware.discard(process)


def beat_seconds(heartbeat_timeout: float) -> float:
    """Seconds between two heartbeats."""
    return min(1.0, heartbeat_timeout / 5)
