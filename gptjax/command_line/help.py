"""The text of --help (a command's description and flags) and of --help_config (every field of its config)."""

from __future__ import annotations

import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator

from absl import flags
from ml_collections import ConfigDict

from gptjax.command_line.flags import Flags
from gptjax.config.meanings import Field, described

NARROWEST, WIDEST = 40, 120


def command_help(story: str, command: Flags) -> str:
    """Returns the text of --help. story: the docstring of the command's module."""
    parts = [inspect.cleandoc(story), "", "Flags:"]
    for title, listed in itertools.groupby(_in_order(command.own), key=lambda flag: command.group_of(flag.name)):
        parts += ["", f"{title}:"] if title else []
        parts += map(_flag, listed)
    if command.config_fields is not None:
        parts.append(
            _item(
                "--help_config",
                "List all fields that --config.FIELD=VALUE can set; --help_config=NAME: only one section.",
            )
        )
    return "\n".join(parts)


def _in_order(own: list[flags.Flag]) -> list[flags.Flag]:
    """Puts the most important flags first, then the others in order of definition."""
    names = [flag.name for flag in own]
    first = ("workdir", "config") if "workdir" in names else ("input", "output", "config")
    return sorted(own, key=lambda flag: first.index(flag.name) if flag.name in first else len(first))


def _flag(flag: flags.Flag) -> str:
    head = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=…"
    # absl adds type and repetition to the text, which this function states itself
    text = re.sub(r"^<[^>]*>: |;\s+repeat this option.*$", "", flag.help or "", flags=re.DOTALL)
    if isinstance(flag, flags.EnumFlag):
        text = f"{' | '.join(flag.parser.enum_values)}. {text}"
    if flag.boolean:
        text += " Default: on." if flag.default else ""
    elif flag.default not in (None, "", []):
        text += f" Default: {flag.default}."
    return _item(head, text)


def config_help(fields: Callable[[], ConfigDict], section: str = "") -> str:
    """Lists every field, or the fields of one section or name, with default, meaning and allowed values."""
    chosen = [field for field in described(fields) if _is_in(field.name, section)]
    if not chosen:
        sections = sorted({field.name.partition(".")[0] for field in described(fields)})
        return f"there is no section or field {section!r}; the sections are {', '.join(sections)}"
    lines, before = [], None
    for field in chosen:
        its_section = field.name.rpartition(".")[0]
        if its_section != before and before is not None:
            lines.append("")
        before = its_section
        lines.append(_item(f"--config.{field.name}={field.default!r}", _meaning(field)))
    return "\n".join(lines)


def _is_in(name: str, section: str) -> bool:
    return not section or name == section or name.startswith(f"{section}.") or name.rpartition(".")[2] == section


def _meaning(field: Field) -> str:
    if not field.allowed or field.allowed in field.meaning:
        return field.meaning
    return f"{field.meaning} ({field.allowed})" if field.meaning else field.allowed


def _item(head: str, text: str) -> str:
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size((100, 24)).columns))
    return "\n".join(_lines(head, text, width))


def _lines(head: str, text: str, width: int, indent: int = 6) -> Iterator[str]:
    yield f"  {head}"
    yield from textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)
