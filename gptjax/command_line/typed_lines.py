"""The lines that a person types, with the keys that a terminal's user expects, or those that a pipe brings."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from gptjax.display.terminal import Console

_GREEN, _PLAIN = "\x1b[1;32m", "\x1b[0m"


def lines(output: Console) -> Iterator[str]:
    """Yields what the user types, or the lines of standard input; lines that end with \\ are joined.

    At a terminal, arrow keys edit a line and bring back earlier ones, a line may be longer than the 4,095 bytes that
    a terminal passes on by itself, and what is pasted is one line, whatever line breaks are in it. Ctrl-C drops what
    has been typed.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are not text are refused later
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # some systems have none
            import readline  # noqa: F401 - `input` uses it from now on
    whole = ""
    while True:
        try:
            line = input(_prompt("… " if whole else "> ", output) if sys.stdin.isatty() else "")
        except EOFError:
            if sys.stdin.isatty():
                output.print()
            return
        except KeyboardInterrupt:
            output.print()
            whole = ""
            continue
        if line.endswith("\\"):
            whole += line[:-1] + "\n"
        else:
            yield whole + line
            whole = ""


def _prompt(text: str, output: Console) -> str:
    """The prompt in colour, if the console has colours; \\1 and \\2 enclose what takes no room on the screen."""
    if not output.is_terminal or output.no_color:
        return text
    return f"\1{_GREEN}\2{text}\1{_PLAIN}\2"
