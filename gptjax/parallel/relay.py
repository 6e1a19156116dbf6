"""Carries bytes between a process's JAX client and the coordination service of process 0: python relay.py HOST PORT

JAX's client aborts its process, with a C++ stack, as soon as the connection to the service breaks, and no Python code
can prevent that. With this relay in between, the connection does not break, and `member.py` detects and reports that
process 0 is gone. The relay is a separate process, since the client may hold Python's lock while it waits for an
answer.

It prints the port on 127.0.0.1 where it waits for the client. It ends when its standard input closes, which is when its
parent ends.
"""

import signal
import socket
import sys
import threading
import time


def main(host: str, port: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the parent, which decides when to end
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=accept, args=(server, host, port), daemon=True).start()
    sys.stdin.buffer.read()


def accept(server: socket.socket, host: str, port: int) -> None:
    opened = []  # keeps both ends of every connection: unreferenced sockets would be closed
    while True:
        near = server.accept()[0]
        far = connect(host, port)
        opened.append((near, far))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def connect(host: str, port: int) -> socket.socket:
    """Retries until the service is up."""
    while True:
        try:
            return socket.create_connection((host, port))
        except OSError:
            time.sleep(0.1)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copies data until one end closes; the other stays open."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
