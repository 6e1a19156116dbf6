"""Finds and prints the differences of two JSON trees, such as a run's saved settings and the current ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DIFFERENT = ". What differs:\n"  # separates a sentence from its lines
MOST_LINES = 12
MOST_CHARACTERS = 64  # longest text of a value
CONTEXT = 12  # characters that a shortened value shows before the part that differs


def differences(saved: Any, current: Any, field: str = "") -> dict[str, tuple[Any, Any]]:
    """Returns dotted field → (saved value, current value) wherever two JSON trees differ."""
    named = _have_names(saved) and _have_names(current)
    saved_by_name, current_by_name = _by_name(saved, named), _by_name(current, named)
    if saved_by_name is None or current_by_name is None:
        return {} if saved == current else {field.removesuffix("."): (saved, current)}
    found: dict[str, tuple[Any, Any]] = {}
    for name in {**saved_by_name, **current_by_name}:
        found |= differences(saved_by_name.get(name), current_by_name.get(name), f"{field}{name}.")
    return found


def with_lines(sentence: str, found: Mapping[str, tuple[Any, Any]]) -> str:
    """Returns the sentence, followed by one line per difference."""
    return f"{sentence}{DIFFERENT}" + "\n".join(lines(found))


def lines(found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Returns one line per difference: '  model.width: was 384, is now 512'. Long values are shortened."""
    shown = []
    for field, values in list(found.items())[:MOST_LINES]:
        saved, current = parts_that_differ(*map(_text, values))
        shown.append(f"  {field}: was {saved}, is now {current}")
    more = len(found) - len(shown)
    return [*shown, f"  … and {more} more"] if more else shown


def without_line_breaks(message: str) -> str:
    """Returns the message as one line; only the list of differences that `with_lines` made keeps its line breaks."""
    sentence, mark, listed = message.partition(DIFFERENT)
    return " ".join(sentence.split()) + mark + listed


def parts_that_differ(a: str, b: str) -> tuple[str, str]:
    """Returns both texts. If one is long, each is cut to the part that differs, with a little context before it; '…'
    marks the cuts."""
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
        return "not set"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _have_names(tree: Any) -> bool:
    """Whether `tree` is a list whose dicts all have different names."""
    names = [item.get("name") for item in tree if isinstance(item, dict)] if isinstance(tree, list) else []
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _by_name(tree: Any, named: bool) -> dict[str, Any] | None:
    """Returns a dict, or a list of dicts keyed by name or index; None for a value that is compared as a whole."""
    if not isinstance(tree, list):
        return tree if isinstance(tree, dict) else None
    if not all(isinstance(item, dict) for item in tree):
        return None
    return {item["name"] if named else str(number): item for number, item in enumerate(tree)}
