"""How every command starts and ends: absl flags in, one line and exit code 2 for a user's mistake, no traceback."""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from gptjax.config import ConfigError, RunError, default, flatten, suggestion


def define_config_flag(example: str = "configs/gpt2.py:124m") -> flags.FlagHolder:
    """--config=FILE.py[:argument], with --config.section.field=value to override any field of it."""
    return config_flags.DEFINE_config_file(
        "config", None, f"A file such as {example}; --config.section.field=value overrides a field of it."
    )


def named_value(text: str) -> tuple[str, Any]:
    """'gpus_per_node=1' → ('gpus_per_node', 1); what is no Python literal is text.

    Raises:
      ConfigError: it has no name, or no value.
    """
    name, _, value = text.partition("=")
    if not (name and value):
        raise ConfigError(f"{text!r}: expected NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def run(
    main: Callable[[list[str]], int | None], arguments: int = 0, fields: Callable[[], ConfigDict] = default
) -> None:
    """Runs `main(argv)` under absl, and exits with its return value.

    arguments: how many a command takes besides its flags, at most.
    fields: a config with every field that --config.FIELD=VALUE may name.

    Mistakes of the user (`ConfigError`, bad flags, stray arguments) and of the machine (`OSError`: no space left, no
    permission) end in one line on stderr and exit code 2, a run that broke down (`RunError`) in one line and 1, Ctrl-C
    in 130. Anything else is a bug and keeps its traceback.
    """

    def guarded(argv: list[str]) -> int | None:
        try:
            if len(argv) > 1 + arguments:
                raise ConfigError(
                    f"unexpected argument {argv[1 + arguments]!r}: options are given as --name=value (see --help)"
                )
            return main(argv)
        except (ConfigError, OSError) as error:
            return _fail(error)
        except RunError as error:
            _fail(error)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    app.run(guarded, flags_parser=functools.partial(_parse_flags, flatten(fields())))


def _parse_flags(known: Mapping[str, Any], argv: list[str]) -> list[str]:
    if {"--help", "-h", "-help"} & set(argv[1:]):  # absl's own would exit with 1
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
    try:
        _check_overrides(argv[1:], known)
        rest = flags.FLAGS(argv)
        if flags.FLAGS["verbosity"].using_default_value:  # absl would set INFO: libraries' news of their own work
            flags.FLAGS.verbosity = logging.WARNING
        return rest
    except (ConfigError, OSError) as error:
        sys.exit(_fail(error))
    except flags.Error as error:
        sys.exit(_fail(_cause_of(error)))
    except Exception as error:  # a config file is the user's own program: where it fails, not how it was called
        place = traceback.extract_tb(error.__traceback__)[-1]
        sys.exit(_fail(f"{place.filename}, line {place.lineno}: {type(error).__name__}: {error}"))


def _cause_of(error: flags.Error) -> str:
    """The message of a flag error; of a config file that failed, its own error instead of ml_collections' traceback."""
    message = str(error)
    if "Error whilst parsing config file" not in message:
        return f"{message} (see --help)"
    flag = message.partition(": ")[0]
    is_cause = re.compile(r"\s*[\w.]+(Error|Exception)\b")
    cause = next((line for line in reversed(message.splitlines()) if is_cause.match(line)), message)
    return cause.removeprefix("gptjax.config.ConfigError: ") if "ConfigError" in cause else f"{flag}: {cause}"


def _check_overrides(arguments: list[str], known: Mapping[str, Any]) -> None:
    """Refuses `--config.section.field` that no config has, before ml_collections meets it with a traceback."""
    names = [argument.lstrip("-").partition("=")[0] for argument in arguments if argument.startswith("-")]
    overrides = [name.removeprefix("config.") for name in names if name.startswith("config.")]
    for field in overrides:
        if field not in known:
            raise ConfigError(
                f"--config.{field}: unknown field{suggestion(field, known)} (default() in config.py has all)"
            )
    files = [argument.partition("=")[2] for argument in arguments if argument.lstrip("-").startswith("config=")]
    for file in files:
        path = file.rpartition(":")[0] if ":" in file else file
        if not os.path.isfile(path):
            raise ConfigError(f"--config={file}: there is no file {path}")
    if overrides and "config" not in names:
        raise ConfigError(f"--config.{overrides[0]} overrides a field of a config, but --config=FILE.py is missing")


def _fail(error: Exception | str) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
