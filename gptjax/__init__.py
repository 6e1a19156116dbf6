"""gptjax: a GPT-style language model from scratch on JAX, from raw text to samples."""

import os
import signal
import sys
import threading

from gptjax.command_line.driver_messages import import_jax_without_them

__version__ = "0.1.0"


def _is_a_command(typed: list[str]) -> bool:
    """Whether Python was started by `gptjax …`, `python -m gptjax …` or `python -m gptjax.COMMAND …`."""
    if "-m" in typed[:-1]:
        return typed[typed.index("-m") + 1].partition(".")[0] == "gptjax"
    return len(typed) > 1 and os.path.basename(typed[1]) == "gptjax"


def _end_quietly_by_ctrl_c() -> None:
    """Makes Ctrl-C end a command without a traceback while it imports its libraries; `cli.run` then handles it."""
    if (
        _is_a_command(sys.orig_argv)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


_end_quietly_by_ctrl_c()
if _is_a_command(sys.orig_argv):
    import_jax_without_them()
