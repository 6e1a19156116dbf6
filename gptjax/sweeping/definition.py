"""What a sweep file says: `get_sweep(arg)` returns a `Sweep`. Loading it, and the config file that it starts from."""

from __future__ import annotations

import ast
import dataclasses
import functools
import runpy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from gptjax.config import ConfigError, default, flatten, suggestion, validate
from gptjax.sweeping.algebra import Point


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Many runs of one config.

    Attributes:
      config: the file that every run starts from, as `--config` takes it: 'configs/gpt2.py:124m'.
      points: what differs between the runs.
      settings: what all of them have in common beyond the file: field → value. Not part of their names.
      metric: what is compared, a name of metrics.jsonl; lower is better.
      x: field along which the metric is drawn, one line for each combination of the others; '': none.
    """

    config: str
    points: Sequence[Point]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metric: str = "validation/loss"
    x: str = ""


def load_sweep(text: str) -> Sweep:
    """The sweep of 'FILE.py' or 'FILE.py:argument'.

    Raises:
      ConfigError: no such file, or its `get_sweep` fails or returns something else.
    """
    sweep = _call(text, "get_sweep")
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"{text}: get_sweep() must return a gptjax.sweeping.Sweep, not a {type(sweep).__name__}")
    return sweep


def load_config(text: str) -> ConfigDict:
    """The config of 'FILE.py' or 'FILE.py:argument', as `python -m gptjax.train --config=…` would read it.

    Raises:
      ConfigError: no such file, or its `get_config` fails or returns something else.
    """
    config = _call(text, "get_config")
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{text}: get_config() must return a ConfigDict, not a {type(config).__name__}")
    return config


def override(config: ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """A validated copy of the config with these fields set.

    Raises:
      ConfigError: an unknown field, a value of another type, or a config that cannot work.
    """
    config = config.copy_and_resolve_references()  # ConfigDict(config) would share the sections
    known = flatten(default())
    for field, value in settings.items():
        if field not in known:
            raise ConfigError(f"sweep: unknown field {field}{suggestion(field, known)} (gptjax/config.py has all)")
        *sections, name = field.split(".")
        try:
            functools.reduce(lambda section, part: section[part], sections, config)[name] = value
        except (TypeError, ValueError):
            raise ConfigError(
                f"{field} = {value!r}: expected {type(known[field]).__name__}, got {type(value).__name__}"
            ) from None
    validate(config)
    return config


def parse_setting(text: str) -> tuple[str, Any]:
    """'optimizer.learning_rate=3e-4' → (field, value of the field's type).

    Raises:
      ConfigError: no such field, or no such value.
    """
    field, equals, value = text.partition("=")
    known = flatten(default())
    if not equals or field not in known:
        raise ConfigError(f"--set={text}: expected FIELD=VALUE of gptjax/config.py{suggestion(field, known)}")
    if isinstance(known[field], str):
        return field, value
    try:
        return field, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise ConfigError(f"{field} = {value!r}: expected {type(known[field]).__name__}") from None


def _call(text: str, function: str) -> Any:
    """What a function of a Python file returns, given the argument after the colon if there is one."""
    path, colon, argument = text.rpartition(":") if ":" in text else (text, "", "")
    if not Path(path).is_file():
        raise ConfigError(f"{text}: there is no file {path}")
    try:
        names = runpy.run_path(path)
        if function not in names:
            raise ConfigError(f"{path}: must define {function}()")
        return names[function](*([argument] if colon else []))
    except ConfigError:
        raise
    except Exception as error:  # the file is the user's own program: where it fails, not how it was called
        places = traceback.extract_tb(error.__traceback__)
        place = next((p for p in reversed(places) if Path(p.filename) == Path(path)), places[-1])
        raise ConfigError(f"{path}, line {place.lineno}: {type(error).__name__}: {error}") from error
