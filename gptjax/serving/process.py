"""The process around the application: its socket, its signals, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from gptjax.config import ConfigError
from gptjax.serving.app import Server

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound to the address; connections are refused until the server runs.

    Raises:
      ConfigError: the address is not this machine's, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"--host={host}: must be an address of this machine, such as 127.0.0.1 or 0.0.0.0") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            why = "is in use by another program; choose another, or 0 for any that is free"
        elif error.errno == errno.EACCES:
            why = "only the administrator may use ports below 1024"
        else:
            raise ConfigError(f"--host={host}: must be an address of this machine ({error.strerror})") from None
        raise ConfigError(f"--port={port}: {why}") from None
    bound.set_inheritable(True)
    return bound


class Process(uvicorn.Server):
    """Serves an application until a signal, and then ends in order: no new requests, running ones may finish.

    Args:
      grace: seconds for these; then they are cancelled. A second signal cancels them at once.
      started: is called when connections are accepted.
      stopping: is called with the number of requests that still run.
    """

    def __init__(
        self,
        app: ASGIApp,
        server: Server,
        grace: float,
        started: Callable[[], None] = lambda: None,
        stopping: Callable[[int], None] = lambda running: None,
    ):
        patience = server.limits.patience
        config = uvicorn.Config(
            app,
            http=type("Protocol", (PatientProtocol,), {"patience": patience}),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(grace + patience) + 1,  # of connections whose clients do not read
        )
        super().__init__(config)
        self._server, self._grace, self._started, self._stopping = server, grace, started, stopping

    def serve_forever(self, sockets: list[socket.socket]) -> None:
        self.run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.draining = True
        self._stopping(len(self._server.running))
        waiting = asyncio.create_task(self._end_when_due())
        try:
            await super().shutdown(sockets)
        finally:
            waiting.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._grace = 0.0  # the second signal
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        """Signals end the server; uvicorn would raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _end_when_due(self) -> None:
        """Cancels what still runs after the grace time."""
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - began < self._grace:
            await asyncio.sleep(0.05)
        for answers in list(self._server.running):
            answers.cancel()


class PatientProtocol(H11Protocol):
    """HTTP on one connection, which is closed if its client takes too long.

    uvicorn waits without limit for a head that has begun, for the rest of a body that was answered early, and for a
    client that does not read what it is sent. It only limits the time in which nothing comes after an answer.
    """

    patience = 30.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading()
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

    def _expect_request(self) -> None:
        """Starts the time for the head of the next request, unless it runs already. It ends with that head."""
        if self._is_answering:
            self._stop_reading()
        elif self._reading is None and not self.transport.is_closing():
            self._reading = self.loop.call_later(self.patience, self._give_up_on_head)

    @property
    def _is_answering(self) -> bool:
        """Whether a request has come that has not been answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up_on_head(self) -> None:
        self._reading = None
        if not self._is_answering:  # no request has come
            self.transport.abort()

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _stop_waiting(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
