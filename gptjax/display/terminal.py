"""Safe output of commands: untrusted text cannot control the terminal, and a closed terminal does not end a run.

Run folders from other people, documents, tokenizer pieces and generated text may contain control codes, with which a
terminal changes its title, writes to the clipboard or moves the cursor.

  console = Console()          a rich console that shows control codes instead of sending them, and ignores markup
  console.print(anything)      prints; styles are given as rich `Text` or `style=`. Every command prints this way.
  visible(text)                makes control codes visible in text that is printed without a console (errors on stderr)
  one_line(text)               the same for a value that must stay on its line of a table
  write_raw(console, text)     writes a command's product (a sample): filtered on a terminal, byte for byte to a file
                               or a pipe

Every command calls `set_up_streams` once (command_line/cli.py): characters that stdout cannot encode are escaped, and a
command that produces files continues when its console closes (`| head`, a closed ssh).
"""

from __future__ import annotations

import contextlib
import errno
import io
import multiprocessing
import os
import re
import select
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import rich.console
from rich.segment import Segment
from rich.text import Text

# Control characters except newline and tab (C0, DEL, C1), line separators, and marks that change the text direction.
_CODES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# The console is closed; unlike these, a full disk may have room again.
_GONE = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF}


def visible(text: str) -> str:
    """Replaces every character that controls a terminal by a symbol: ␛ for escape, � if there is no symbol."""
    return _CODES.sub(lambda code: _picture(code[0]), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Like `visible`, and also replaces newlines (␊) and tabs (␉)."""
    return "".join(_picture(character) if character in "\n\t" else character for character in visible(text))


def _picture(character: str) -> str:
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


class Console(rich.console.Console):
    """A console that prints text literally: control codes visible, no markup, no emoji codes, no guessed colours."""

    def __init__(self, **options: Any):
        super().__init__(**dict(markup=False, emoji=False, highlight=False) | options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """Removes the trailing blanks that rich adds to lines of tables, when writing to a file or a pipe."""
        text = super()._render_buffer(buffer)
        return text if self.is_terminal else re.sub(r" +(?=\n)", "", text)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)  # before rich measures the text, so that columns align

    def render(self, renderable: Any, options: rich.console.ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def print_note(console: rich.console.Console, text: str | Text) -> None:
    """Prints a line of prose. It is wrapped at words on a terminal, and stays one line in a file or a pipe."""
    console.print(text, soft_wrap=not console.is_terminal)


def write_raw(console: Console, text: str | Text, style: str = "") -> None:
    """Writes and flushes text without adding a newline: `visible` and styled on a terminal, unchanged elsewhere."""
    if console.is_terminal:
        console.print(Text(text, style) if isinstance(text, str) else text, end="", soft_wrap=True)
    else:
        console.file.write(str(text))
    console.file.flush()


# --- The streams of a process -----------------------------------------------------------------------------------------


class ConsoleGone(Exception):
    """The reader has closed stdout."""


class _Outlet(io.FileIO):
    """stdout or stderr. After its reader has closed it, writes are discarded.

    outlived: whether to continue silently then; otherwise the first failed write raises ConsoleGone.
    """

    def __init__(self, descriptor: int, outlived: bool):
        super().__init__(descriptor, "wb", closefd=False)
        self._outlived = outlived

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                written = super().write(left)
                if written is None:  # another process that shares the pipe may have made it non-blocking
                    select.select([], [self.fileno()], [])
                    continue
                left = left[written:]
        except OSError as error:
            if error.errno in _GONE or not self._outlived:  # what is still buffered must not fail again at the end
                self._forget()
            if not self._outlived:
                if error.errno in _GONE:
                    raise ConsoleGone(error.strerror) from None
                raise
        return size

    def _forget(self) -> None:
        """Replaces the console by the null device, also for libraries that write without Python."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def print_last(text: str) -> None:
    """Prints the last message of a process on stderr, without the streams, which another thread may hold."""
    if os.isatty(1):
        os.write(1, b"\x1b[?25h\n")  # progress bars hide the cursor
    os.write(2, visible(text).encode())


def exit_at_once(status: int) -> NoReturn:
    """Ends the process without Python's shutdown, which waits for threads; also ends its data loaders."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, ConsoleGone):
            stream.flush()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)


def set_up_streams(outlive: bool) -> None:
    """Makes stdout and stderr open and able to take any text.

    outlive: whether the command continues when its stdout is closed; otherwise ConsoleGone is raised. A closed stderr
      is always ignored.
    """
    with contextlib.suppress(OSError):  # otherwise a file opened later could get the number of stdout
        while (lowest := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(lowest)
    sys.stdout = _rebuilt(sys.stdout, 1, outlive)
    sys.stderr = _rebuilt(sys.stderr, 2, True)


def _rebuilt(stream: Any, descriptor: int, outlive: bool) -> Any:
    """Rebuilds the stream of this descriptor; any other stream (of a test, of a notebook) is returned unchanged."""
    if stream is None:  # the descriptor was closed when Python started
        return open(os.devnull, "w", encoding="utf-8")
    if type(stream) is not io.TextIOWrapper or stream.fileno() != descriptor:
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    outlet = _Outlet(descriptor, outlive)
    return io.TextIOWrapper(
        outlet if stream.write_through else io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
