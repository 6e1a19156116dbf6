"""Starts and ends every command: parses its flags, and reports a user's mistake in one line with exit code 2."""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, logging
from absl.flags import Error as FlagError

from gptjax.command_line.commands import COMMANDS
from gptjax.command_line.flag_messages import check_arguments, check_numbers, explained, typed_overrides
from gptjax.command_line.flags import Flags
from gptjax.command_line.help import command_help, config_help
from gptjax.config import ConfigError, RunError
from gptjax.display.differences import without_line_breaks
from gptjax.display.terminal import ConsoleGone, exit_at_once, set_up_streams, visible

INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE  # the status that shells report for a program that `| head` ends


def named_values(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    """['gpus_per_node=1', …] → {'gpus_per_node': 1, …}. A value that is not a Python literal is kept as text.

    Raises:
      ConfigError: a name or a value is missing; the message begins with `flag`.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not (name and value):
            raise ConfigError(f"{flag}={text}: expected NAME=VALUE,NAME=VALUE")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def unescaped(flag: str, text: str) -> str:
    r"""Replaces Python's backslash escapes in `text`: \n, \t, \x41, \u00e9 …; \\ is one backslash.

    Raises:
      ConfigError: a backslash does not begin an escape; the message begins with `flag`.
    """

    def value(found: re.Match) -> str:
        try:
            return ast.literal_eval(f'"{found[0]}"')
        except SyntaxError:  # a single backslash, or a number that is not a character
            raise ConfigError(
                f"{flag}={text!r}: {found[0]!r} is not an escape sequence of Python (write two backslashes for one)"
            ) from None

    return re.sub(r"\\([abfnrtv\\'\"]|[0-7]{1,3}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8})?", value, text)


def command(name: str) -> str:
    """Returns how the user can start a command: 'gptjax train' or 'python -m gptjax.train', like this process."""
    typed = sys.orig_argv
    if "-m" in typed[:-1]:
        module = typed[typed.index("-m") + 1]
        return f"{typed[0]} -m gptjax{' ' if module == 'gptjax' else '.'}{name}"
    is_installed_command = len(typed) > 1 and os.path.basename(typed[1]) == "gptjax"
    return f"gptjax {name}" if is_installed_command else f"python -m gptjax.{name}"


@contextlib.contextmanager
def fields_named_by_flags(flag_of: Mapping[str, str]) -> Iterator[None]:
    """In the block, messages of ConfigErrors name the flag that sets a config field instead of the field."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_by_flags(str(error), flag_of)) from error


def _by_flags(message: str, flag_of: Mapping[str, str]) -> str:
    """'split.by = 'x': expected …' → '--split_by='x': expected …', wherever a field is a whole word."""
    for field, flag in flag_of.items():
        value = "( = )?" if "." in field else "( = )"  # without a value, 'seed' may be an ordinary word
        named = rf"(?<![\w./-]){re.escape(field)}(?![\w/]|\.\w){value}"
        message = re.sub(named, functools.partial(_flag_for, flag), message)
    return message


def _flag_for(flag: str, match: re.Match) -> str:
    return f"--{flag}{'=' if match[1] else ''}"


def run(
    main: Callable[[list[str]], int | None],
    flags: Flags | None = None,
    arguments: int = 0,
    outlives_console: bool = False,
) -> None:
    """Runs `main(argv)` under absl, and exits with its return value.

    Args:
      flags: the command's flags.
      arguments: the maximum number of arguments besides the flags.
      outlives_console: whether the command continues when its stdout is closed, because it produces files. Other
        commands then end without a message, as `| head` expects.

    Mistakes of the user (`ConfigError`, bad flags, stray arguments) and failures of the machine (`OSError`: no space
    left, no permission) end in one line on stderr and exit code 2; a run that cannot continue (`RunError`) ends in one
    line and exit code 1, and Ctrl-C in exit code 130. Anything else is a bug and keeps its traceback.
    """

    def guarded(argv: list[str]) -> int | None:
        try:
            if len(argv) > 1 + arguments:
                raise ConfigError(
                    f"unexpected argument {argv[1 + arguments]!r}: options are given as --name=value (see --help)"
                )
            with fields_named_by_flags({field: f"config.{field}" for field in typed_overrides(sys.argv[1:])}):
                return main(argv)
        except (ConfigError, OSError) as error:
            return _fail(error)
        except RunError as error:
            _fail(error)
            return error.status

    logging.use_absl_handler()  # replaces other handlers that write to the same stderr
    set_up_streams(outlives_console)
    _set_up_logs()
    parser = functools.partial(_parse_flags, main, flags or Flags(), arguments)
    with _interrupts_raised() as is_own_process:
        try:
            try:
                app.run(guarded, flags_parser=parser)
            finally:
                sys.stdout.flush()
        except ConsoleGone:
            sys.exit(PIPE_CLOSED)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            if is_own_process:  # Python's shutdown waits for libraries' threads, or crashes while one of them compiles
                exit_at_once(INTERRUPTED)
            sys.exit(INTERRUPTED)


@contextlib.contextmanager
def _interrupts_raised() -> Iterator[bool]:
    """In the block, Ctrl-C raises KeyboardInterrupt; before and after it, while Python imports and shuts down, Ctrl-C
    ends the process at once (see `gptjax/__init__.py`). Yields whether this process was started as a command."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_DFL:
        yield False
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield True
    finally:
        signal.signal(signal.SIGINT, before)


def _set_up_logs() -> None:
    """Prints log messages on the current stderr in one line each, without tracebacks and terminal escapes.

    `run` reports errors of the main thread. An error in a library's thread, or while Python shuts down, is logged here
    if the machine caused it (a full disk); otherwise it keeps its traceback. Orbax logs errors that it also raises, so
    those records are dropped.
    """

    def in_a_sentence(record: Any) -> bool:
        if record.exc_info and f"{os.sep}orbax{os.sep}" in record.pathname:
            return False
        cause = _cause(record.exc_info[1]) if record.exc_info and record.exc_info[1] else ""
        record.msg, record.args = visible(record.getMessage() + cause), None
        record.exc_info = record.exc_text = record.stack_info = None
        return True

    handler = logging.get_absl_handler().python_handler
    handler.stream = sys.stderr
    if handler.filters:  # an earlier command in this process has set this up
        return
    handler.addFilter(in_a_sentence)
    for module, name in ((threading, "excepthook"), (sys, "unraisablehook")):
        setattr(module, name, functools.partial(_log_or_pass_on, getattr(module, name)))


def _log_or_pass_on(otherwise: Callable[[Any], None], failure: Any) -> None:
    """Logs a failure that the machine caused and no caller can catch; passes other failures to `otherwise`."""
    if isinstance(failure.exc_value, OSError | RunError):
        logging.error("in the background%s", _cause(failure.exc_value))
    else:
        otherwise(failure)


def _cause(error: BaseException) -> str:
    return f": {type(error).__name__}: {' '.join(str(error).split())}"


def _parse_flags(main: Callable, flags: Flags, arguments: int, argv: list[str]) -> list[str]:
    given = [argument.lstrip("-").partition("=") for argument in argv[1:] if argument.startswith("-")]
    for name, _, value in given:
        if name in ("help", "h", "helpshort", "helpfull"):
            print(command_help(sys.modules[main.__module__].__doc__ or "", flags))
            sys.exit(0)
        if name == "help_config" and flags.config_fields:
            print(config_help(flags.config_fields, value))
            sys.exit(0)
    try:
        if not arguments and len(argv) > 1:
            _check_no_command(argv[1])
        check_arguments(argv[1:], flags)
        rest = flags.parse(argv)
        check_numbers(flags)
        if flags.values["verbosity"].using_default_value:  # absl's INFO would show libraries' progress messages
            flags.values.verbosity = logging.WARNING  # type: ignore[assignment]  # absl says that it takes any type
        return rest
    except (ConfigError, OSError) as error:
        sys.exit(_fail(error))
    except FlagError as error:
        sys.exit(_fail(explained(error, flags)))


def _check_no_command(argument: str) -> None:
    """Raises ConfigError if the first argument of a command looks like another command: `gptjax prepare trace`."""
    is_flag = argument.startswith("-")  # --sample is a flag of prepare
    if not is_flag and (close := difflib.get_close_matches(argument, COMMANDS, n=1, cutoff=0.75)):
        raise ConfigError(
            f"unexpected argument {argument!r}: {close[0]} is a separate command; did you mean {command(close[0])}?"
        )


def _fail(error: Exception | str) -> int:
    print(f"error: {visible(without_line_breaks(str(error)))}", file=sys.stderr)
    return 2
