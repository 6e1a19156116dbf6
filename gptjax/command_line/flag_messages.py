"""Explains wrong flags in one sentence: the flag as it was typed, its value, and what is allowed.

  check_arguments(arguments, command)   before parsing: finds what absl would ignore or answer with a traceback
  explained(error, command)             explains an error that absl raised in one sentence
  check_numbers(command)                after parsing: finds numbers that are not valid for any flag

`command` is the flags of the command.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Iterator

from absl import flags
from ml_collections import ConfigDict

from gptjax.command_line.flags import Flags
from gptjax.config import ConfigError, flatten, suggestion


def typed_overrides(arguments: list[str]) -> list[str]:
    """Returns the fields that --config.FIELD=VALUE and --noconfig.FIELD name."""
    names = [name for _, name, _ in _typed(arguments)]
    return [name.partition("config.")[2] for name in names if name.startswith(("config.", "noconfig."))]


def check_arguments(arguments: list[str], command: Flags) -> None:
    """Raises ConfigError for an unknown config field, a missing value, or a value that a flag does not take."""
    fields = command.config_fields
    known = flatten(fields()) if fields else {}
    for field in typed_overrides(arguments) if fields else ():
        if field not in known:
            _refuse_field(field, known)
    is_switch = {flag.name: flag.boolean for flag in command.own}
    is_switch |= {f"config.{field}": isinstance(value, bool) for field, value in known.items()}
    for place, name, value in _typed(arguments):
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        if is_switch.get(name) is False and value is None and (not following or following.startswith("--")):
            before = f", or --{name}={following} if that is its value" if following else ""
            raise ConfigError(f"--{name}: its value is missing; write --{name}=VALUE{before}")
        if name not in is_switch and is_switch.get(name.removeprefix("no")) and value is not None:
            on = name.removeprefix("no")
            raise ConfigError(f"--{name}={value}: --{name} takes no value; write --{name} or --{on}={value}")
    overrides = typed_overrides(arguments) if fields else []
    if overrides and not any(name == "config" for _, name, _ in _typed(arguments)):
        raise ConfigError(f"--config.{overrides[0]} overrides a field of a config, but --config=FILE.py is missing")


def _typed(arguments: list[str]) -> Iterator[tuple[int, str, str | None]]:
    """Yields (place, name, value) of everything that looks like a flag, up to '--'; value is None without a '='."""
    for place, argument in enumerate(arguments):
        if argument == "--":
            return
        if argument.startswith("-") and argument.strip("-"):
            name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
            yield place, name, value if equals else None


def _refuse_field(field: str, known: dict) -> None:
    inside = [name for name in known if name.startswith(f"{field}.")]
    if inside:
        raise ConfigError(
            f"--config.{field}: is a section; name one of its fields, such as --config.{inside[0]}=VALUE "
            f"(--help_config={field} lists them)"
        )
    raise ConfigError(f"--config.{field}: unknown field{suggestion(field, known)} (--help_config lists all)")


# --- What absl raised -------------------------------------------------------------------------------------------------


def explained(error: flags.Error, command: Flags) -> str:
    """Returns the error in one sentence. If a config file failed to load, the sentence says what is wrong with it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, flags.UnrecognizedFlagError):
        typed = error.flagvalue.partition("=")[0] or error.flagname
        return f"{typed}: unknown flag{_like(error.flagname, command)} (--help lists all)"
    if isinstance(error, flags.CantOpenFlagFileError):
        return f"--flagfile: cannot be read ({getattr(error.__context__, 'strerror', error)})"
    found = re.match(r"flag (--([^=]+)=)", str(error))
    if not (isinstance(error, flags.IllegalFlagValueError) and found and found[2] in command.values):
        return f"{error} (see --help)"
    reason = f": {error.__context__}"  # absl joins flag, value and reason in one text
    value = str(error)[found.end() :].removesuffix(reason)
    return f"{found[1]}{value}: must be {_allowed(command.values[found[2]], value, command.config_fields)}"


def _allowed(flag: flags.Flag, value: str, fields: Callable[[], ConfigDict] | None) -> str:
    """Returns the allowed values of a flag: 'an integer', 'one of a, b; did you mean a?' …"""
    parser = flag.parser
    if isinstance(parser, flags.EnumParser):
        choices = list(parser.enum_values)
        return f"one of {', '.join(choices)}{suggestion(value, choices)}"
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    if isinstance(parser, flags.ListParser):
        return "texts separated by commas, with every quotation mark closed"
    if isinstance(parser, flags.IntegerParser | flags.FloatParser):
        limits = _limits(flag.name, fields)
        text = parser.syntactic_help
        text = text if text.startswith(("a ", "an ")) else f"{parser.number_article} {text}"  # 'number >= 3'
        return f"{text} ({limits})" if limits else text
    return "a tuple as Python writes it, such as (), (1,) or ('a', 'b')"  # the only other type of config fields


def _limits(name: str, fields: Callable[[], ConfigDict] | None) -> str:
    """Returns the limits that the config declares for a field beyond its type."""
    if fields is None or not name.startswith("config."):
        return ""
    allowed = getattr(sys.modules[fields.__module__], "allowed", lambda field: "")
    return allowed(name.removeprefix("config."))


def _like(name: str, command: Flags) -> str:
    """Returns '; did you mean --X?' for the most similar flag or config field, or '' if none is similar."""
    own = [other for flag in command.own for other in (flag.name, f"no{flag.name}")[: 1 + flag.boolean]]
    fields = command.config_fields
    of_config = [f"config.{field}" for field in flatten(fields())] if fields else []
    same = [field for field in of_config if field.endswith(f".{name}")]  # --width, --model.width
    close = (same if "." in name else []) or difflib.get_close_matches(name, own, n=1, cutoff=0.7) or same
    close = close or difflib.get_close_matches(name, own + of_config, n=1, cutoff=0.6)
    return f"; did you mean --{close[0]}?" if close else ""


def check_numbers(command: Flags) -> None:
    """Raises ConfigError for a flag that is NaN or infinite, which is not valid for any flag."""
    for name in command.values:
        value = command.values[name].value
        if isinstance(value, float) and not math.isfinite(value) and not name.startswith("config."):
            raise ConfigError(f"--{name}={value}: must be a finite number")
