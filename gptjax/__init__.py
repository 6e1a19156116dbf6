"""gptjax: a GPT-style language model from scratch on JAX, from raw text to samples."""

import os
import signal
import sys
import threading

from gptjax.command_line.driver_messages import import_jax_without_them
from gptjax.command_line.kept_memory import keep_freed_memory

__version__ = "0.1.0"


def _command(typed: list[str]) -> str | None:
    """The COMMAND of `gptjax COMMAND`, `python -m gptjax COMMAND` or `python -m gptjax.COMMAND`, with which Python was
    started; '' without one; None: started by something else."""
    rest = typed[1:]
    if "-m" in typed[:-1]:
        package, _, command = typed[typed.index("-m") + 1].partition(".")
        if package != "gptjax" or command:
            return command if package == "gptjax" else None
        rest = typed[typed.index("-m") + 1 :]
    elif not rest or os.path.basename(rest[0]) != "gptjax":
        return None
    return rest[1] if len(rest) > 1 else ""


def _end_quietly_by_ctrl_c() -> None:
    """Makes Ctrl-C end a command without a traceback while it imports its libraries; `cli.run` then handles it."""
    if (
        _STARTED is not None
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


_STARTED = _command(sys.orig_argv)
_end_quietly_by_ctrl_c()
if _STARTED == "train":
    keep_freed_memory()  # before any library starts a thread, which would have a heap of its own
if _STARTED is not None:
    import_jax_without_them()
