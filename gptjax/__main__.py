"""The commands of gptjax: gptjax COMMAND [--flag=value …], or python -m gptjax.COMMAND …"""

from __future__ import annotations

import importlib.metadata
import platform
import runpy
import sys

from gptjax.command_line.commands import COMMANDS
from gptjax.config import suggestion
from gptjax.display.terminal import set_up_streams


def main() -> int:
    """Starts a command as `python -m gptjax.COMMAND` does, so that processes it starts find their main module."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("help", "--help", "-h", "-help"):
        set_up_streams(outlive=True)
        print(overview(), flush=True)
        return 0
    name = arguments[0]
    if name in ("--version", "-V", "version"):
        set_up_streams(outlive=True)
        print(version(), flush=True)
        return 0
    if name.startswith("-") and (later := [argument for argument in arguments if argument in COMMANDS]):
        print(f"error: {name}: options follow the command; did you mean gptjax {later[0]} {name} …?", file=sys.stderr)
        return 2
    if name not in COMMANDS:
        print(
            f"error: {name!r} is not a command{suggestion(name, COMMANDS)} (gptjax --help lists them)", file=sys.stderr
        )
        return 2
    sys.argv = [name, *arguments[1:]]
    runpy.run_module(f"gptjax.{name}", run_name="__main__", alter_sys=True)
    return 0


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "Build a GPT-style language model from scratch on JAX: prepare text, train, evaluate and sample.",
            "",
            "gptjax COMMAND [--flag=value …]; every command has --help; those with --config also have --help_config.",
            "",
            *lines,
        ]
    )


def version() -> str:
    """Returns the versions of gptjax and of the libraries that affect its results."""
    packages = ("gptjax", "jax", "flax", "optax")
    found = [f"{package} {_version_of(package)}" for package in packages]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(run from its sources)"


if __name__ == "__main__":
    sys.exit(main())
