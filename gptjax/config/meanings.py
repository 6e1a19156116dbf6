"""Lists every field of a config with its default, its meaning and what is allowed, read from the code.

A field is declared in one place: in a dataclass (`gptjax.settings.Settings`), or in the function that makes the config
(`gptjax.corpus.config.default`). The comment beside the declaration is the field's meaning.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import sys
import textwrap
import tokenize
import typing
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from gptjax.config.access import flatten


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
      name: the dotted name.
      meaning: the comment beside the field, or ''.
      allowed: the allowed values, or '' if the type says enough.
    """

    name: str
    default: Any
    meaning: str
    allowed: str


def described(make: Callable[[], ConfigDict]) -> list[Field]:
    """Returns the fields of `make()` in their order. The module of `make` may have a dataclass `Settings` that declares
    all or most of the fields, and a function `allowed` from a field's name to its allowed values."""
    module = sys.modules[make.__module__]
    meanings = dict(_meanings(make))
    if hasattr(module, "Settings"):
        meanings |= dict(_meanings_in(module.Settings))
    allowed = getattr(module, "allowed", lambda field: "")
    return [Field(name, value, _nearest(meanings, name), allowed(name)) for name, value in flatten(make()).items()]


def _nearest(meanings: dict[str, str], name: str) -> str:
    """Returns the comment of the field, or of the innermost section that has one."""
    while name not in meanings and "." in name:
        name = name.rpartition(".")[0]
    return meanings.get(name, "")


def _meanings_in(kind: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (dotted name, comment) for the fields of a dataclass and of the dataclasses nested in it."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = _comments(source)
    lines = {
        statement.target.id: statement
        for statement in ast.walk(ast.parse(source))
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _meanings_in(hint, f"{prefix}{name}.")
        elif text := comments.get(lines[name].end_lineno or 0) or comments.get(lines[name].lineno):
            yield prefix + name, text


def _meanings(make: Callable) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, comment) for what `make` declares: `config.name = value`, and the names in `dict(…)`."""
    source = textwrap.dedent(inspect.getsource(make))
    comments = _comments(source)
    (function,) = ast.parse(source).body
    for statement in ast.walk(function):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute):
            yield from _of(statement.targets[0].attr, statement.value, statement.lineno, comments, make)
        elif isinstance(statement, ast.Return) and statement.value is not None:
            yield from _of("", statement.value, 0, comments, make)


def _of(name: str, value: ast.expr, line: int, comments: dict[int, str], make: Callable) -> Iterator[tuple[str, str]]:
    if isinstance(value, ast.Call):
        inner = ast.unparse(value.func)
        if inner.endswith(".default"):  # the section is defined elsewhere
            module = make.__globals__[inner.partition(".")[0]]
            yield from ((f"{name}.{key}" if key else name, text) for key, text in _meanings(module.default))
            return
        if inner == "ConfigDict" and value.args:
            yield from _of(name, value.args[0], line, comments, make)
            return
        if inner == "dict" and not value.args:
            prefix = f"{name}." if name else ""
            for keyword in value.keywords:
                if keyword.arg is None:  # **others: one comment for all of them
                    if text := comments.get(keyword.value.lineno):
                        yield name, text
                else:
                    yield from _of(prefix + keyword.arg, keyword.value, keyword.lineno, comments, make)
            return
    if text := comments.get(value.end_lineno or 0) or comments.get(line):
        yield name, text


def _comments(source: str) -> dict[int, str]:
    """Returns line number → its comment: the comment lines directly above it, then the comment at its end."""
    found: dict[int, str] = {}
    above: list[str] = []
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if lines[token.start[0] - 1].strip().startswith("#"):
                above.append(text)
            else:
                found[token.start[0]] = f"{found.get(token.start[0], '')} {text}".lstrip()
        elif token.type == tokenize.NAME and above:
            found[token.start[0]] = " ".join(above)
            above = []
    return found
