"""Every field of a config with its default, its meaning and what is allowed, as the code that makes it says.

The function that makes a config (`gptjax.config.default`, `gptjax.corpus.config.default`) is the one place where a
field is written down, and the comment beside it is its meaning: it is read from there.
"""

from __future__ import annotations

import ast
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from gptjax.config import flatten


@dataclass(frozen=True)
class Field:
    """name: dotted. meaning: the comment beside it; '' where there is none. allowed: '' where its type says all."""

    name: str
    default: Any
    meaning: str
    allowed: str


def described(make: Callable[[], ConfigDict]) -> list[Field]:
    """The fields of `make()` in their order. What is allowed is said by `allowed` of the module of `make`, if any."""
    meanings = dict(_meanings(make))
    allowed = getattr(sys.modules[make.__module__], "allowed", lambda field: "")
    return [Field(name, value, _nearest(meanings, name), allowed(name)) for name, value in flatten(make()).items()]


def _nearest(meanings: dict[str, str], name: str) -> str:
    """The comment of the field, or of the nearest section that has one."""
    while name not in meanings and "." in name:
        name = name.rpartition(".")[0]
    return meanings.get(name, "")


def _meanings(make: Callable) -> Iterator[tuple[str, str]]:
    """(dotted name, comment) of whatever `make` writes down: config.name = value, and the names of dict(…)."""
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
        if inner.endswith(".default"):  # the section is made elsewhere
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
    if text := comments.get(value.end_lineno) or comments.get(line):
        yield name, text


def _comments(source: str) -> dict[int, str]:
    """Line → the comment at its end, after those that stand alone right above it."""
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
