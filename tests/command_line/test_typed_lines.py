"""What a person types at a terminal: keys that edit a line, long and pasted lines, Ctrl-C and Ctrl-D."""

import ast
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from commands import REPOSITORY

pty = pytest.importorskip("pty")
pytest.importorskip("readline")

PRINTS_LINES = """
from gptjax.display.terminal import Console
from gptjax.command_line.typed_lines import lines
for line in lines(Console()):
    print("got", ascii(line))
print("over")
"""


@pytest.mark.skipif(shutil.which("ps") is None, reason="ps tells when the program waits")
@pytest.mark.filterwarnings("ignore:os.fork")  # the child starts another program at once
def test_keys_edit_a_line_and_bring_back_earlier_ones_at_a_terminal():
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it for what it starts in the background
        os.chdir(REPOSITORY)
        os.execve(sys.executable, [sys.executable, "-c", PRINTS_LINES], os.environ | {"TERM": "xterm-256color"})

    def shown_after(keys, until):
        os.write(terminal, keys)
        shown = b""
        while not re.search(until, shown, re.DOTALL):
            assert select.select([terminal], [], [], 60)[0], f"the terminal shows no more than {shown!r}"
            shown += os.read(terminal, 4096)
        return shown

    def wait_for_a_key():
        """Python overlooks a signal that comes after the last key's echo and before it waits for the next key."""
        command = ["ps", "-o", "stat=", "-p", str(process)]
        while not subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith("S"):
            time.sleep(0.01)

    def got(keys):
        shown = shown_after(keys + b"\n", until=b"got .*> ")
        return ast.literal_eval(re.search(rb"got (.*?)\r\n", shown)[1].decode())

    shown_after(b"", until=b"> ")
    assert got(b"Hallo worl\x1b[D\x7f\x05d!") == "Hallo wold!"  # left, delete, end of line
    assert got(b"\x1b[A") == "Hallo wold!"  # up
    assert got("Größe 🙂".encode()) == "Größe 🙂"
    assert got(b"a" * 5000) == "a" * 5000
    assert got(b"one \\\ntwo") == "one \ntwo"
    shown_after(b"dropped", until=b"dropped")
    wait_for_a_key()
    shown_after(b"\x03", until=b"> ")
    assert got(b"kept") == "kept"
    shown_after(b"\x04", until=b"over\r\n")
    assert os.waitpid(process, 0)[1] == 0
    os.close(terminal)
