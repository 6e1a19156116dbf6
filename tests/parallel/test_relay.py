"""The relay carries bytes both ways, and its connection stays open when the service is gone."""

import signal
import socket
import subprocess
import sys
import threading

import pytest

from gptjax.parallel import relay

PATIENCE = 60  # seconds


@pytest.fixture
def ends(monkeypatch):
    """The client's and the service's end of a relayed connection. The service starts after the client."""
    entrance, service = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    place = service.getsockname()
    service.close()
    refused = threading.Event()
    monkeypatch.setattr(relay.time, "sleep", lambda seconds: refused.set())
    threading.Thread(target=relay.accept, args=(entrance, *place), daemon=True).start()
    near = socket.create_connection(entrance.getsockname(), PATIENCE)
    near.sendall(b"early")
    assert refused.wait(PATIENCE)
    service = socket.create_server(place)
    service.settimeout(PATIENCE)
    far = service.accept()[0]
    far.settimeout(PATIENCE)
    yield near, far
    near.close()
    far.close()
    service.close()


def test_bytes_pass_both_ways_and_the_client_stays_connected_when_the_service_ends(ends):
    near, far = ends
    assert far.recv(5, socket.MSG_WAITALL) == b"early"
    far.sendall(b"answer")
    assert near.recv(6, socket.MSG_WAITALL) == b"answer"
    far.close()
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
        near.recv(1)


def test_the_relay_ignores_signals_and_ends_with_its_parent():
    command = [sys.executable, "-I", "-S", relay.__file__, "127.0.0.1", "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    port = int(process.stdout.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
    socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
