"""A road is data: the stages from raw text to a model to talk with, each an ordinary command."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptjax.command_line import cli
from gptjax.command_line.commands import COMMANDS
from gptjax.config import ConfigError, suggestion
from gptjax.config.user_code import call_in_file, path_and_argument

NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Stage:
    """One command of a road.

    Attributes:
      name: letters, digits and underscores.
      about: what the stage does, in a few words.
      command: a command of gptjax and its flags, as ("train", "--config=…"), or a Python script and its flags, as
        ("experiments/road/documentation.py", "--output=…").
      makes: the folder that the command makes and no other stage writes to; "" if its result is in another's folder.
      reads: files and folders that decide what the command makes. What an earlier stage makes counts as this stage's
        command and what that stage reads; anything else counts with its names, sizes and times of change.
      lines: what is typed into the command, line by line.
      plan: for a stage that trains, the flags of `gptjax plan` that say what it trains; (): it is not planned.
    """

    name: str
    about: str
    command: tuple[str, ...]
    makes: str = ""
    reads: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()

    @property
    def is_script(self) -> bool:
        return self.command[0].endswith(".py")

    @property
    def arguments(self) -> list[str]:
        """The command as this process starts it."""
        name, *flags = self.command
        return [sys.executable, *([name] if self.is_script else ["-m", f"gptjax.{name}"]), *flags]

    @property
    def text(self) -> str:
        """The command as a user can give it in a shell."""
        name, *flags = self.command
        start = f"{shlex.quote(sys.orig_argv[0])} {shlex.quote(name)}" if self.is_script else cli.command(name)
        typed = f"printf '%s\\n' {shlex.join(self.lines)} | " if self.lines else ""
        return f"{typed}{start} {shlex.join(flags)}".rstrip()

    def flag(self, name: str) -> str:
        """The value of a flag of the command; "" if it is not given."""
        return next((part.partition("=")[2] for part in self.command if part.startswith(f"--{name}=")), "")


@dataclass(frozen=True)
class Road:
    """Stages in their order, and what a user can do when all are done.

    Attributes:
      opens: (what one can do, command as that of a stage) for each, or (what, the name of a file to open).
    """

    stages: tuple[Stage, ...]
    opens: tuple[tuple[str, tuple[str, ...] | str], ...] = ()


def load_road(text: str, inputs: Mapping[str, str]) -> Road:
    """The road of 'FILE.py' or 'FILE.py:argument', from its `get_road(arg, *, workdir, text, chats)`.

    Args:
      inputs: the keyword arguments of get_road.

    Raises:
      ConfigError: the file does not define a road, or a stage of it cannot be.
    """
    road = call_in_file(text, "get_road", Road, keywords=inputs)
    file, _ = path_and_argument(text)
    _check(file, road)
    return road


def _check(file: str, road: Road) -> None:
    if not road.stages:
        raise ConfigError(f"{file}: a road needs stages")
    names: list[str] = []
    made: list[str] = []
    for number, stage in enumerate(road.stages, 1):
        if not isinstance(stage, Stage):
            raise ConfigError(f"{file}: stage {number} is {stage!r}: make each with Stage(…)")
        if not (isinstance(stage.name, str) and NAME.fullmatch(stage.name)):
            raise ConfigError(
                f"{file}: stage {number}: name = {stage.name!r}: must be small letters, digits and underscores"
            )
        if stage.name in names:
            raise ConfigError(f"{file}: name = {stage.name!r}: two stages have it")
        names.append(stage.name)
        _check_command(f"{file}: {stage.name}", stage.command)
        for field in ("reads", "lines", "plan"):
            _check_texts(f"{file}: {stage.name}: {field}", getattr(stage, field))
        if stage.makes and stage.makes in made:
            raise ConfigError(f"{file}: {stage.name}: makes = {stage.makes!r}: an earlier stage makes it")
        made.append(stage.makes)
    for _, command in road.opens:
        if not isinstance(command, str):
            _check_command(f"{file}: opens", command)


def _check_command(place: str, command: Any) -> None:
    _check_texts(f"{place}: command", command)
    name = command[0] if command else ""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise ConfigError(f"{place}: there is no file {name} (roads start in the project's folder)")
    elif name not in COMMANDS:
        raise ConfigError(f"{place}: {name!r} is neither a command of gptjax nor a file.py{suggestion(name, COMMANDS)}")


def _check_texts(place: str, given: Any) -> None:
    if not (isinstance(given, tuple) and all(isinstance(part, str) for part in given)):
        raise ConfigError(f"{place} = {given!r}: must be a tuple of texts")
