"""What commands show: text that is not ours cannot command the terminal, and a terminal that goes away ends no run.

Names, settings and messages of a run folder that somebody sent, document texts, tokenizer pieces, a model's own words:
any of them may hold the codes by which a terminal changes its title, writes to the clipboard or moves the cursor.

  console = Console()          a rich console that shows such codes instead of sending them, and knows no markup;
  console.print(anything)      styles come as rich `Text` or `style=`. Every command prints through one.
  visible(text)                the same for what is printed without a console, such as an error on stderr
  one_line(text)               … for a value that must stay in its line of a table
  write_raw(console, text)     for text that is the command's product (a sample): filtered on a terminal, and byte for
                               byte into a file or a pipe

`set_up_streams` is called once by every command (cli.py): what stdout cannot encode is escaped, and a console that goes
away (`| head`, a closed ssh) is no error of a command that has other work to do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import select
import sys
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment
from rich.text import Text

# Control characters but for newline and tab (C0, DEL, C1), line separators, and what turns the direction of a line.
_CODES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_GONE = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF}  # of a console; a full disk may have room again


def visible(text: str) -> str:
    """The text with a picture for every character that a terminal would obey: ␛ for escape, � where there is none."""
    return _CODES.sub(lambda code: _picture(code[0]), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`visible`, newlines (␊) and tabs (␉) too."""
    return "".join(_picture(character) if character in "\n\t" else character for character in visible(text))


def _picture(character: str) -> str:
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


class Console(rich.console.Console):
    """A console that takes every text as it is: `visible`, no markup, no emoji codes, no colours by guess."""

    def __init__(self, **options: Any):
        super().__init__(**dict(markup=False, emoji=False, highlight=False) | options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """In a file or a pipe, without the blanks with which rich fills up the lines of tables."""
        text = super()._render_buffer(buffer)
        return text if self.is_terminal else re.sub(r" +(?=\n)", "", text)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)  # before it is measured, so that columns stay in line

    def render(self, renderable: Any, options: rich.console.ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def print_note(console: rich.console.Console, text: str | Text) -> None:
    """Prints a line of prose, on a terminal wrapped at words; in a file or a pipe it stays one line."""
    console.print(text, soft_wrap=not console.is_terminal)


def write_raw(console: Console, text: str | Text, style: str = "") -> None:
    """Writes text at once, without a newline of its own: in a terminal `visible` and with style, elsewhere as it is."""
    if console.is_terminal:
        console.print(Text(text, style) if isinstance(text, str) else text, end="", soft_wrap=True)
    else:
        console.file.write(str(text))
    console.file.flush()


# --- The streams of a process -----------------------------------------------------------------------------------------


class ConsoleGone(Exception):
    """Nobody reads what is written to stdout any more."""


class _Outlet(io.FileIO):
    """stdout or stderr, which may go away: then what is written goes nowhere.

    outlived: whether that is no error. If it is, the first write to fail raises ConsoleGone.
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
                if written is None:  # whoever shares a pipe may have made it non-blocking
                    select.select([], [self.fileno()], [])
                    continue
                left = left[written:]
        except OSError as error:
            if error.errno in _GONE:
                self._forget()
            if not self._outlived:
                if error.errno in _GONE:
                    raise ConsoleGone(error.strerror) from None
                raise
        return size

    def _forget(self) -> None:
        """Lets the null device take the console's place, also for libraries that write past Python."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def set_up_streams(outlive: bool) -> None:
    """Makes stdout and stderr what a command can rely on: open, and able to take any text.

    outlive: the command goes on when its stdout goes away; else that raises ConsoleGone. stderr is always outlived.
    """
    with contextlib.suppress(OSError):  # a file opened later must not become stdout by getting its number
        while (lowest := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(lowest)
    sys.stdout = _rebuilt(sys.stdout, 1, outlive)
    sys.stderr = _rebuilt(sys.stderr, 2, True)


def _rebuilt(stream: Any, descriptor: int, outlive: bool) -> Any:
    """The stream of this descriptor, made anew; any other (a test's, a notebook's) is left alone."""
    if stream is None:  # it was closed when Python started
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
