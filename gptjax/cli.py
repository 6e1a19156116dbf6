"""How every command starts and ends: absl flags in, one line and exit code 2 for a user's mistake, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from absl import app, flags

from gptjax.config import ConfigError


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs `main(argv)` under absl, and exits with its return value.

    Mistakes of the user (`ConfigError`, bad flags, stray arguments) and of the machine (`OSError`: no space left, no
    permission) end in one line on stderr and exit code 2; Ctrl-C in exit code 130. Anything else is a bug and keeps
    its traceback.
    """

    def guarded(argv: list[str]) -> int | None:
        try:
            if len(argv) > 1:
                raise ConfigError(f"unexpected argument {argv[1]!r}: options are given as --name=value (see --help)")
            return main(argv)
        except (ConfigError, OSError) as error:
            return _fail(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    if {"--help", "-h", "-help"} & set(argv[1:]):  # absl's own would exit with 1
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_fail(f"{error} (see --help)"))


def _fail(error: Exception | str) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
