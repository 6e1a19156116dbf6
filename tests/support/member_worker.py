"""One of several processes, which runs the given actions: member_worker.py COORDINATOR NUM_PROCESSES ID TIMEOUTS
ACTION…

An action is a JSON list of a name in ACTIONS and its arguments. The process ends as the commands do.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax
from forked import serve
from jax.experimental import multihost_utils

from gptjax.command_line import cli
from gptjax.config import ConfigError
from gptjax.parallel import member, members
from gptjax.parallel.meeting import Timeouts, find_meeting
from gptjax.training.interrupt import StopRequest


def fail(text):
    raise ConfigError(text)


def break_down():
    raise KeyError("of a bug")


def meet_in_a_program():
    """Waits in XLA, where no Python code runs."""
    multihost_utils.sync_global_devices("here")


def put_batches(count):
    for _ in range(count):
        members.count_batch()
        time.sleep(0.1)


def signal_oneself(number):
    os.kill(os.getpid(), number)


def compile_for_long(number):
    """Sends the signal to this process while its main thread runs no Python code."""
    threading.Timer(0.2, signal_oneself, [number]).start()
    if jax.process_count() > 1:
        meet_in_a_program()
    else:
        jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 2, jax.numpy.cos, x))(0.0).block_until_ready()  # no end


def abort_in_a_library():
    """Aborts in a thread without Python code, as Gloo's event loop does, while the main thread waits."""
    threading.Thread(target=ctypes.CDLL(None).abort, daemon=True).start()
    time.sleep(1000)


ACTIONS = {
    "agree": members.agree,
    "fail": fail,
    "break down": break_down,
    "kill": lambda: signal_oneself(signal.SIGKILL),
    "freeze": lambda: signal_oneself(signal.SIGSTOP),
    "interrupt": lambda: signal_oneself(signal.SIGINT),
    "compile for long": compile_for_long,
    "meet in a program": meet_in_a_program,
    "devices": jax.devices,
    "abort in a library": abort_in_a_library,
    "begin": members.begin,
    "batches": put_batches,
    "sleep": time.sleep,
    "shared": lambda folder: members.check_shared(Path(folder), "--workdir"),
    "say": lambda text: print(text, flush=True),
}


def main(argv):
    coordinator, num_processes, process, timeouts, *actions = argv[1:]
    meeting = find_meeting(coordinator, int(num_processes), int(process))
    stop = StopRequest(every=None) if "compile for long" in argv[-1] else contextlib.nullcontext()
    with stop, members.joined(meeting, Timeouts(**json.loads(timeouts))):
        for name, *arguments in map(json.loads, actions):
            ACTIONS[name](*arguments)
        print("left", flush=True)
    return 0


if __name__ == "__main__":
    serve()
    member.SHOWN_LATE = member.GRACE = 0.5
    sys.argv.insert(1, "--")  # no flags follow, only arguments
    cli.run(main, arguments=100)
