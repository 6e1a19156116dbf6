"""Output cannot control a terminal, and a closed console does not end a command that produces files."""

import ast
import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from waiting import PATIENCE

from gptjax.display.terminal import Console, _Outlet, one_line, print_note, visible, write_raw

HOSTILE = "\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x1b\\\x1b[2J\x9b31m\x08\x7f\r\u202e[bold]:smile:"
PACKAGE = Path(__file__).parents[2] / "gptjax"


def test_control_codes_become_symbols_and_text_is_unchanged():
    assert visible("é\tß\n\x1b[31m\r\n\x7f\x85\u202e\u2067") == "é\tß\n␛[31m\n␡\ufffd\ufffd\ufffd"
    assert one_line("a\n\tb") == "a␊␉b"


def terminal(**options):
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, legacy_windows=False, **options)


def as_table(text):
    table = Table(text, title=text)
    table.add_row(text)
    return table


def as_progress(text):
    progress = Progress(TextColumn("{task.fields[status]}"), BarColumn())
    progress.add_task("", status=text)
    return progress.get_renderable()


@pytest.mark.parametrize("made", [str, Text, as_table, as_progress], ids=lambda f: f.__name__)
def test_no_output_of_a_console_controls_the_terminal(made):
    console = terminal(width=400)
    console.print(made(HOSTILE))
    shown = console.file.getvalue()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert "␛]0;title␇" in shown or made in (Text, as_progress)  # rich drops BEL in its own texts
    assert "␛[2J" in shown
    # Its texts are markup, so untrusted text must not be given to it.
    assert "[bold]:smile:" in shown or made is as_progress


def test_consoles_still_move_the_cursor_themselves():
    console = terminal()
    console.clear()
    assert "\x1b[2J" in console.file.getvalue()


def test_generated_text_is_raw_except_on_a_terminal():
    pipe = Console(file=io.StringIO())
    write_raw(pipe, HOSTILE)
    assert pipe.file.getvalue() == HOSTILE
    shown = terminal()
    write_raw(shown, HOSTILE)
    assert "\x1b" not in shown.file.getvalue() and "␛[2J" in shown.file.getvalue()


def test_no_module_prints_without_the_filter():
    """No module makes rich's own console, and the few bare prints are of trusted texts."""
    consoles, prints = [], set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        consoles += [path.name for line in text.splitlines() if re.match(r"from rich.*import.*\bConsole\b", line)]
        if any(isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(ast.parse(text))):
            prints.add(path.name)
    assert not consoles
    assert prints == {"__main__.py", "cli.py", "member.py", "relay.py"}


LOGS = """
import sys, threading
from absl import logging
from gptjax.command_line import cli
import logging as standard
standard.basicConfig()  # as a library may call it
failure = (OSError, OSError(28), None)
of_orbax = standard.LogRecord("absl", 40, "/x/orbax/future.py", 1, "raised", (), failure)
class Held:
    def __del__(self):
        raise OSError(28, "No space left")
def fail():
    raise OSError(28, "No space left")
def main(argv):
    logging.error("from %s", "\x1b[2J")
    logging.get_absl_logger().handle(of_orbax)
    try:
        fail()
    except OSError:
        logging.exception("it was")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Held()
    raise OSError(28, "No space left", "a\x1b[2Jb")
cli.run(main)
"""


def test_failures_of_the_machine_are_reported_in_sentences(tmp_path):
    (tmp_path / "command.py").write_text(LOGS)
    result = subprocess.run(
        [sys.executable, str(tmp_path / "command.py")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr and "\x1b" not in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 5 and all("No space left" in line for line in lines[1:]), result.stderr
    assert "from ␛[2J" in lines[0] and lines[-1].startswith("error: ")


# --- Closed consoles -------------------------------------------------------------------------------------------------

COMMAND = """
import sys, time
from gptjax.command_line import cli
def main(argv):
    from gptjax.display.terminal import Console
    console = Console()
    for line in range(2000):
        console.print(f"line {line} é … ☃")
        print("bare", file=sys.stderr)
    open(sys.argv[1], "w").write("done")
cli.run(main, arguments=1, outlives_console=%r)
"""


def run_command(tmp_path, outlives, shell, **environment):
    script = tmp_path / "command.py"
    script.write_text(COMMAND % outlives, encoding="utf-8")
    done = tmp_path / "done"
    line = shell.format(command=f"{sys.executable} {script} {done}")
    result = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        encoding="latin-1",
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
    )
    return result, done.exists()


@pytest.mark.parametrize(
    "outlives, shell, status, finishes",
    [
        (True, "{command} 2>err | head -1; echo ${{PIPESTATUS[0]}}", 0, True),
        (False, "{command} 2>err | head -1; echo ${{PIPESTATUS[0]}}", 141, False),
        (True, "{command} 2>&1 | head -1; echo ${{PIPESTATUS[0]}}", 0, True),
        (True, "{command} >/dev/full 2>&1; echo $?", 0, True),
        (False, "{command} >/dev/full 2>err; echo $?", 2, False),  # a full disk is not a closed reader
        (True, "{command} >&- 2>&-; echo $?", 0, True),
        (True, "{command} <&- >&- 2>&-; echo $?", 0, True),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_ends_only_commands_that_just_print(
    tmp_path, monkeypatch, unbuffered, outlives, shell, status, finishes
):
    monkeypatch.chdir(tmp_path)
    result, finished = run_command(tmp_path, outlives, shell, PYTHONUNBUFFERED=unbuffered)
    assert result.stdout.split()[-1] == str(status), result
    assert finished == finishes
    assert "Error" not in result.stderr and "Exception" not in result.stderr


def test_a_stream_writes_everything_to_a_non_blocking_pipe():
    read, write = os.pipe()
    os.set_blocking(write, False)
    outlet, received = _Outlet(write, outlived=False), bytearray()

    def receive():
        while data := os.read(read, 1000):
            received.extend(data)

    reader = threading.Thread(target=receive)
    reader.start()
    data = os.urandom(1 << 18)  # more than fits into a pipe
    assert outlet.write(data) == len(data)
    os.close(write)
    reader.join(PATIENCE)
    os.close(read)
    assert received == data


@pytest.mark.parametrize("make", [os.pipe, pty.openpty])
def test_after_a_console_closes_the_output_of_libraries_is_discarded(make):
    """A closed pipe gives EPIPE, a closed terminal EIO."""
    reader, console = make()
    outlet = _Outlet(console, outlived=True)
    os.close(reader)
    assert outlet.write(b"a") == 1
    assert os.write(console, b"past Python") == 11
    os.close(console)


def test_help_may_be_cut_short(tmp_path):
    result, _ = run_command(tmp_path, True, "{command} --help | true; echo ${{PIPESTATUS[0]}}")
    assert result.stderr == "" and result.stdout.split()[-1] in ("0", "141")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_cannot_be_encoded_are_escaped(tmp_path, encoding):
    result, finished = run_command(tmp_path, True, "{command} 2>/dev/null", PYTHONIOENCODING=encoding)
    assert finished and result.returncode == 0, result.stderr
    assert "\\u2603" in result.stdout


def test_a_table_in_a_file_has_no_trailing_blanks():
    file = io.StringIO()
    console = Console(file=file, width=60)
    grid = Table.grid(padding=(0, 2))
    for row in (("a", "b"), ("longer", "")):
        grid.add_row(*row)
    console.print(grid)
    console.print("kept ", end="")
    console.print("too")
    with console.capture() as captured:
        console.print(grid)
    assert file.getvalue() == "a       b\nlonger\nkept too\n" and captured.get() == "a       b\nlonger\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_note_is_wrapped_on_a_terminal_and_stays_one_line_in_a_file(is_terminal):
    file = io.StringIO()
    words = "› the best checkpoint is chosen only among those that were scored on the same windows".split()
    print_note(Console(file=file, width=20, force_terminal=is_terminal, color_system=None), " ".join(words))
    lines = file.getvalue().splitlines()
    assert " ".join(lines).split() == words
    assert max(map(len, lines)) <= 20 if is_terminal else len(lines) == 1


def test_no_file_gets_the_descriptor_of_a_stream_that_was_closed_at_the_start(tmp_path):
    code = f"""
from gptjax.display.terminal import set_up_streams
set_up_streams(outlive=True)
print("into nothing", flush=True)
file = open({str(tmp_path / "file")!r}, "w")
file.write(str(file.fileno()))
"""
    done = subprocess.run(
        ["bash", "-c", '"$@" <&- >&- 2>&-', "-", sys.executable, "-c", code], cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0 and int((tmp_path / "file").read_text()) > 2
