"""Delays the abort of a C++ thread, so that the loss of another process is reported before it.

When a process is killed, threads of the libraries in the others notice it at the same moment, and some cannot handle
it: an exception in the event loop of Gloo, which connects CPUs, has no handler and aborts the whole process
(https://github.com/pytorch/gloo/issues/514), as does a fatal error of JAX's coordination client. No Python code can
prevent that. But a handler of SIGABRT runs first, in the thread that aborts. While it sleeps, the other threads go on:
the hub reports which process is lost, and `member.py` prints that and ends this process. If nothing ends it, it aborts
after the delay.
"""

import ctypes
import signal

DELAY = int(signal.SIGABRT)  # seconds: the handler is the C function `sleep`, which gets the signal's number


def delay_aborts() -> None:
    """Makes a thread of this process that aborts sleep for DELAY seconds before."""
    c_library = ctypes.CDLL(None)
    c_library.signal.argtypes, c_library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    c_library.signal(signal.SIGABRT, ctypes.cast(c_library.sleep, ctypes.c_void_p))
