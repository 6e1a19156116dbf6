"""Carries bytes between a process's JAX client and the coordination service of process 0: python relay.py HOST PORT

JAX's client ends its process by abort, with a C++ stack, in the moment that the service's connection breaks, and no
Python code can prevent it. Behind this relay the connection does not break: `members.py` notices by itself that
process 0 is gone, and says so. A process of its own, as the client may wait for an answer while it holds Python's lock.

Prints the port on 127.0.0.1 where it waits for the client, and ends with its standard input, that is with its parent.
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
    opened = []  # both ends of every connection: what nobody refers to would be closed
    while True:
        near = server.accept()[0]
        far = connect(host, port)
        opened.append((near, far))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def connect(host: str, port: int) -> socket.socket:
    """Tries until the service is there."""
    while True:
        try:
            return socket.create_connection((host, port))
        except OSError:
            time.sleep(0.1)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Until one end closes; the other is left as it is."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
