"""Templates of prompts: text with {field}, {field[0]} or {field[name]} for the values of a row; {{ stands for {."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_FIELD = re.compile(r"(\w[\w .-]*)((?:\[[^\[\]]+\])*)")
_ALONE = re.compile(r"\{([^{}]*)\}")


class MissingField(Exception):
    """A row has no such field. The message names the field and the fields of the row."""


def check(template: str) -> str:
    """Says what is wrong with a template, as the end of a sentence; '' if it is valid."""
    for place in _PLACE.finditer(template):
        name = place[1]
        if name is not None and not _FIELD.fullmatch(name):
            return f"has {place[0]!r}; a place is {{field}}, {{field[0]}} or {{field[name]}}"
    rest = _PLACE.sub("", template)
    return (
        f"has a single {'{' if '{' in rest else '}'}; write it twice for the character" if set(rest) & {*"{}"} else ""
    )


def is_field(name: str) -> bool:
    """Whether `{name}` is the place of a field."""
    return _FIELD.fullmatch(name) is not None


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template filled with the values of a row. A list is joined by blanks.

    Raises:
      MissingField: the row lacks a field.
    """

    def filled(place: re.Match) -> str:
        return place[0][0] if place[1] is None else _text(_value(place[1], values))

    return _PLACE.sub(filled, template)


def fill_all(templates: tuple[str, ...], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Fills every template. A template that is only a field gives one text per element of a list.

    Raises:
      MissingField: the row lacks a field.
    """
    found: list[str] = []
    for template in templates:
        alone = _ALONE.fullmatch(template)
        value = _value(alone[1], values) if alone else None
        found += [_text(each) for each in value] if isinstance(value, list) else [fill(template, values)]
    return tuple(found)


def _value(place: str, values: Mapping[str, Any]) -> Any:
    """The value for {place}."""
    field = _FIELD.fullmatch(place)
    assert field is not None, place  # `check` has approved the template
    name = field[1]
    if name not in values:
        raise MissingField(f"has no field {name!r} (it has {', '.join(map(repr, values)) or 'none'})")
    value = values[name]
    for key in re.findall(r"\[([^\[\]]+)\]", field[2]):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise MissingField(f"has no {place!r}") from None
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)
