"""Loads a sweep file, whose `get_sweep(arg)` returns a `Sweep`, and sets fields of a config."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from gptjax.config import ConfigError, default, flatten, suggestion, validate
from gptjax.config.user_code import call_in_file
from gptjax.evaluation.scores import LOSS
from gptjax.model.families import validate_model
from gptjax.sweeping.algebra import SEED, Point


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Many runs of one config.

    Attributes:
      config: the config file that every run starts from, as in `--config`: 'configs/gpt2.py:124m'.
      points: the settings that differ between the runs.
      settings: further settings that all runs share (field → value); they are not part of a run's name.
      metric: the metric to compare, by its name in metrics.jsonl.
      higher_is_better: whether a higher metric is better, as for an accuracy.
      x: the field on the horizontal axis of the plot, with one line per combination of the others; '': no plot. Its
        values must be numbers.
    """

    config: str
    points: Sequence[Point]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metric: str = LOSS.name
    x: str = ""
    higher_is_better: bool = False


def load_sweep(text: str) -> Sweep:
    """Loads the sweep of 'FILE.py' or 'FILE.py:argument'.

    Raises:
      ConfigError: the file does not exist, or its `get_sweep` fails or does not return a valid sweep.
    """
    sweep = call_in_file(text, "get_sweep", Sweep)
    wanted = (
        *(("config", str, "a file"), ("points", Sequence, "a list of points"), ("settings", Mapping, "a dict")),
        *(("metric", str, "the name of a metric"), ("x", str, "a field, or '' for no plot")),
    )
    for name, kind, words in wanted:
        if not isinstance(value := getattr(sweep, name), kind):
            raise ConfigError(f"{text}: the sweep's {name} = {value!r}: must be {words}")
    for point in sweep.points:
        if not isinstance(point, Point):
            raise ConfigError(f"{text}: the sweep's points hold {point!r}: make points with over(…), grid(…) and so on")
    if sweep.x and sweep.points:
        _check_x(f"{text}: the sweep's x = {sweep.x!r}", sweep)
    return sweep


def _check_x(setting: str, sweep: Sweep) -> None:
    """Raises ConfigError, which begins with `setting`, unless the results of the sweep can be drawn over its x."""
    varied = dict.fromkeys(field for point in sweep.points for field in point.settings if field != SEED)
    if sweep.x not in varied:
        raise ConfigError(
            f"{setting}: must be one of the fields that its points set, and not {SEED}{suggestion(sweep.x, varied)} "
            f"(they set {', '.join(varied) or 'none'})"
        )
    for point in sweep.points:
        value = point.settings.get(sweep.x, 0)
        if not (isinstance(value, numbers.Real) and math.isfinite(value)):
            raise ConfigError(f"{setting}: must be a field whose values are numbers; a point sets it to {value!r}")


def override(config: ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """Returns a validated copy of the config with these fields set.

    Raises:
      ConfigError: a field is unknown, a value has another type, or the config is invalid.
    """
    config = config.copy_and_resolve_references()  # ConfigDict(config) would share the sections
    known = flatten(default())
    for field, value in settings.items():
        if field not in known:
            raise ConfigError(
                f"sweep: unknown field {field}{suggestion(field, known)} (gptjax train --help_config has all)"
            )
        *sections, name = field.split(".")
        try:
            functools.reduce(lambda section, part: section[part], sections, config)[name] = value
        except (TypeError, ValueError):
            raise ConfigError(
                f"{field} = {value!r}: expected {type(known[field]).__name__}, got {type(value).__name__}"
            ) from None
    validate(config)
    validate_model(config)
    return config


def parse_setting(text: str) -> tuple[str, Any]:
    """'optimizer.learning_rate=3e-4' → (field, value of the field's type).

    Raises:
      ConfigError: the field is unknown, or the value is not valid for it.
    """
    field, equals, value = text.partition("=")
    known = flatten(default())
    if not equals or field not in known:
        raise ConfigError(f"--set={text}: expected FIELD=VALUE, a field of the config{suggestion(field, known)}")
    if isinstance(known[field], str):
        return field, value
    try:
        return field, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise ConfigError(f"{field} = {value!r}: expected {type(known[field]).__name__}") from None
