"""A client that does not read what it is sent is cut off, and its request is cancelled."""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

from served_models import make_served, running

from gptjax.inference.engine_metrics import EngineMetrics
from gptjax.inference.request import Event, Request


class Endless:
    """Stands for the engine: writes until the request is cancelled."""

    def __init__(self, generator):
        self.metrics, self.adapters, self.max_waiting, self.max_context = EngineMetrics(is_up=True), (), 9, 48
        self.cancelled = threading.Event()

    def submit(self, prompt, params, listener, **rest):
        request = Request("r", [1], params, seed=0, wake=self.cancelled.set)

        def write():
            for _ in range(2000):
                if self.cancelled.is_set():
                    return
                listener(Event(0, "x" * 50_000, (1,)))
                time.sleep(0.005)

        threading.Thread(target=write, daemon=True).start()
        return request


def asked(address):
    """A connection on which an endless stream was asked for."""
    parts = urlsplit(address)
    body = json.dumps({"model": "tiny", "prompt": "a", "stream": True}).encode()
    connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
    connection.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_a_client_that_reads_nothing_is_cut_off_and_its_request_is_cancelled():
    served, notes = make_served(engine=Endless), []
    with running(served, patience=0.5, notes=notes) as (address, _), asked(address):
        assert served.engine.cancelled.wait(20)
    assert notes[-1]["status"] == 499


def test_a_request_that_takes_too_long_is_ended_with_a_sentence():
    served = make_served(engine=Endless)
    with running(served, seconds=0.3) as (address, _), asked(address) as connection:
        answer = b""
        while piece := connection.recv(1 << 20):
            answer = (answer + piece)[-1000:]
        assert served.engine.cancelled.is_set()
    assert b"took longer than 0.3 seconds" in answer and b"data: [DONE]" in answer
