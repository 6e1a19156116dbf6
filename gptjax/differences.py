"""Where two settings differ, in lines for people: what was saved beside what is asked for now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DIFFERENT = "; different are\n"  # stands between a sentence and the lines that belong to it
MOST_LINES = 12
MOST_CHARACTERS = 64  # of a value
CONTEXT = 12  # characters that a shortened value shows before the part that differs


def differences(there: Any, here: Any, field: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted field → (there, here), wherever two JSON trees differ."""
    named = _have_names(there) and _have_names(here)
    there_by_name, here_by_name = _by_name(there, named), _by_name(here, named)
    if there_by_name is None or here_by_name is None:
        return {} if there == here else {field.removesuffix("."): (there, here)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in {**there_by_name, **here_by_name}:
        found |= differences(there_by_name.get(name), here_by_name.get(name), f"{field}{name}.")
    return found


def with_lines(sentence: str, found: Mapping[str, tuple[Any, Any]]) -> str:
    """The sentence, and below it a line for each difference."""
    return f"{sentence}{DIFFERENT}" + "\n".join(lines(found))


def lines(found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """A line for each difference, '  model.width = 384 there, 512 here'; values shortened to the part that differs."""
    told = []
    for field, values in list(found.items())[:MOST_LINES]:
        there, here = parts_that_differ(*map(_text, values))
        told.append(f"  {field} = {there} there, {here} here")
    more = len(found) - len(told)
    return [*told, f"  … and {more} more"] if more else told


def parts_that_differ(a: str, b: str) -> tuple[str, str]:
    """Both texts; where one is long, of each the part from shortly before the first difference, without an end that
    both share. '…' stands for what is left out."""
    if max(len(a), len(b)) <= MOST_CHARACTERS:
        return a, b
    shortest = min(len(a), len(b))
    start = next((i for i in range(shortest) if a[i] != b[i]), shortest)
    end = next((i for i in range(shortest - start) if a[-1 - i] != b[-1 - i]), shortest - start)
    first, last = max(start - CONTEXT, 0), max(end - CONTEXT, 0)
    return _cut(a, first, len(a) - last), _cut(b, first, len(b) - last)


def _cut(text: str, first: int, last: int) -> str:
    last = min(last, first + MOST_CHARACTERS)
    return ("…" if first else "") + text[first:last] + ("…" if last < len(text) else "")


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _have_names(tree: Any) -> bool:
    """Whether items of a list can be told apart by their names."""
    names = [item.get("name") for item in tree if isinstance(item, dict)] if isinstance(tree, list) else []
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _by_name(tree: Any, named: bool) -> dict[str, Any] | None:
    """What a dict holds, or a list of dicts (by name or number). None for a value that is compared as a whole."""
    if not isinstance(tree, list):
        return tree if isinstance(tree, dict) else None
    if not all(isinstance(item, dict) for item in tree):
        return None
    return {item["name"] if named else str(number): item for number, item in enumerate(tree)}
