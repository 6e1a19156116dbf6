"""The default config, and access to the fields of any config by their dotted names."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from gptjax.settings import Section, Settings, allowed_values, thaw


def default() -> ConfigDict:
    """Returns a config of all fields (settings/fields.py) with values that train a small model well on a laptop."""
    return thaw(Settings()).lock()


def allowed(field: str) -> str:
    """Describes the allowed values of a field in a few words; '' if its type says enough."""
    return allowed_values()[field].text()


def get(config: ConfigDict | Section, field: str) -> Any:
    """Returns the value of a dotted field: `get(config, 'model.width')`."""
    return functools.reduce(lambda section, name: section[name], field.split("."), config)


def flatten(config: ConfigDict | Section) -> dict[str, Any]:
    """Returns the fields of a config by their dotted names: {'model.width': 384, …}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if hasattr(value, "items"):  # a section
            flat |= {f"{name}.{inner}": v for inner, v in flatten(value).items()}
        else:
            flat[name] = value
    return flat


_REPLACED = {  # former field → what to set instead, as the end of a sentence
    "evaluation.batches": "evaluation.tokens, a number of tokens: batches times rows times data.sequence_length",
}


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns '; did you mean X?' for the most similar known name, or '' if none is similar. The same name in another
    section comes first, then the same name in other letters (124M for 124m). For a former field, it says what replaced
    the field."""
    for former, successor in _REPLACED.items():
        if name in (former, former.rpartition(".")[2]):
            return f"; {former} was replaced by {successor}"
    known = list(known)
    elsewhere = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    same_letters = [other for other in known if other.lower() == name.lower()]
    close = elsewhere or same_letters or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
