"""Reads the keys of a config.json, whose types are checked, and remembers which were read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gptjax.config import ConfigError

REQUIRED: Any = object()  # a default: the key must be there
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
    dict: "an object",
}


class Keys:
    """The content of a config.json.

    Attributes:
      content: its JSON object.
      source: the file's name, for messages.
      read: the keys that a rule has asked for.
      notes: what a person should know about how the keys were understood.
    """

    def __init__(self, content: Mapping[str, Any], source: str):
        self.content, self.source = content, source
        self.read: set[str] = set()
        self.notes: list[str] = []

    def get(self, name: str, kind: type, default: Any = REQUIRED) -> Any:
        """The value of a key. A key that is missing or null has the default.

        Raises:
          ConfigError: it has no default, or the value is not of this kind.
        """
        self.read.add(name)
        value = self.content.get(name)
        if value is None:
            if default is REQUIRED:
                raise ConfigError(f"{self.source}: {name} is missing: must be {_WORDS[kind]}")
            return default
        good = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if kind is float and type(value) is int and abs(value) < 1e300:
            value, good = float(value), True
        if kind is int and type(value) is float and value.is_integer():
            value, good = int(value), True
        if not good or (kind is float and not math.isfinite(value)):
            raise self.error(name, value, _WORDS[kind])
        return value

    def error(self, name: str, value: Any, wanted: str) -> ConfigError:
        """A message that says what this key must be."""
        text = repr(value)
        return ConfigError(
            f"{self.source}: {name} = {text if len(text) <= 60 else text[:57] + '...'}: must be {wanted}"
        )

    def inside(self, name: str) -> Keys:
        """The object that a key holds; empty if there is none."""
        return Keys(self.get(name, dict, {}), f"{self.source}: {name}")
