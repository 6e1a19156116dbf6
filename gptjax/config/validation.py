"""Checks configs before any device is used. A `ConfigError` names the field, its value and what is allowed."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from gptjax.config.access import default, flatten, get, suggestion
from gptjax.config.durations import Units
from gptjax.errors import ConfigError
from gptjax.settings import Allowed, Section, Settings, allowed_values

AUTO = "auto"
FLOAT32_MAX = 3.4028234e38


def check_fields(config: ConfigDict | Section, reference: ConfigDict | None = None) -> None:
    """Checks that the config has exactly the fields of `reference` (by default `default()`), with their types.

    Raises:
      ConfigError: a field is unknown, is missing, or has another type.
    """
    known, given = flatten(default() if reference is None else reference), flatten(config)
    for field, value in given.items():
        if field not in known:
            raise ConfigError(f"unknown field {field}{suggestion(field, known)}")
        wanted = type(known[field])
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if not fits and not (wanted is float and isinstance(value, int) and not isinstance(value, bool)):
            raise ConfigError(f"{field} = {value!r}: expected {wanted.__name__}, got {type(value).__name__}")
        _check_storable(field, value, wanted)
    for field in known:
        if field not in given:
            raise ConfigError(f"field {field} is missing: start from default()")


def _check_storable(field: str, value: Any, kind: type) -> None:
    """Raises ConfigError for a value that the arrays, paths or JSON files of a run cannot hold."""
    if kind is int and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{field} = {value}: must be below 2^63")
    if kind is float and not abs(value) <= FLOAT32_MAX:
        raise ConfigError(f"{field} = {value if isinstance(value, float) else 'so large'}: must be finite in float32")
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{field} = {value!r}: must be valid UTF-8 text") from None
        if "\0" in value:
            raise ConfigError(f"{field} = {value!r}: must not contain the character NUL")


def validate(config: ConfigDict | Settings) -> None:
    """Checks everything that can be checked without data, devices and models. A family checks its own fields of the
    `model` section (model/families.py: `validate_model`).

    Raises:
      ConfigError: the first invalid field, with its value and what is allowed.
    """
    if "sources" in config:
        raise ConfigError("this config describes a corpus: give it to gptjax prepare")
    check_fields(config)
    if config.model.dtype == "float16":
        raise ConfigError(
            "model.dtype = 'float16': it needs loss scaling, which is not supported; use 'bfloat16' on GPU or TPU, "
            "'float32' on CPU"
        )
    check_values(config, allowed_values(), _in_float32)
    for field, value in flatten(config).items():
        if type(value) is int and value >= 2**31 and field != "seed":  # the integers of arrays, shapes and steps
            raise ConfigError(f"{field} = {value}: must be below 2^31")
    _validate_training(config)


def check_values(
    config: ConfigDict | Section, fields: Mapping[str, Allowed], as_held: Callable[[Any], Any] = lambda value: value
) -> None:
    """Checks that each field has one of its allowed names and is within its limits.

    as_held: rounds a number as the arrays will, before its limits are checked.

    Raises:
      ConfigError: a value is not allowed.
    """
    for field, allowed in fields.items():
        value = get(config, field)
        is_own = allowed.own and ":" in value  # 'module:function' is checked where it is imported
        if allowed.names and value not in allowed.names and not is_own:
            own = ", or module:name of your own" if allowed.own else ""
            raise ConfigError(
                f"{field} = {value!r}: expected one of {', '.join(allowed.names)}{own}"
                f"{suggestion(str(value), allowed.names)}"
            )
    for field, allowed in fields.items():
        for limit in allowed.limits:
            if not limit.holds(as_held(get(config, field))):
                raise ConfigError(f"{field} = {get(config, field)}: {limit.wanted}")


def _in_float32(value: int | float) -> int | float:
    """Rounds a number as float32 arrays do: a rate of 1e-60 becomes 0, a decay of 0.99999999999 becomes 1."""
    return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, float) else value


def _validate_training(config: ConfigDict | Settings) -> None:
    training, at_once = config.training, config.training.batch_per_device
    if at_once not in ("", AUTO) and not (at_once.isdecimal() and 1 <= int(at_once) <= training.batch_size):
        raise ConfigError(
            f"training.batch_per_device = {at_once!r}: must be {AUTO}, '', or a number from 1 to training.batch_size = "
            f"{training.batch_size}"
        )
    if not at_once:  # otherwise it decides the number of micro-batches
        check_micro_batches(config)
    if training.class_weights and training.objective != "classification" and ":" not in training.objective:
        raise ConfigError(
            f"training.class_weights = {training.class_weights!r}: must be empty with training.objective = "
            f"{training.objective!r}, whose data have no labels"
        )
    if config.model.lora_rank and training.ema_decay:
        raise ConfigError(
            f"training.ema_decay = {training.ema_decay}: must be 0 where model.lora_rank is not 0: adapters have no "
            "moving average"
        )
    units = Units(training.batch_size * config.data.sequence_length, steps_per_epoch=1.0, total_steps=100)
    for field, allowed in allowed_values().items():
        duration, text = allowed.duration, get(config, field)
        if duration is None or (duration.optional and not text):
            continue
        if units.steps(text, field) < duration.least:
            raise ConfigError(f"{field} = {text!r}: must be at least one step")
    for rule in config.optimizer.rules:
        check_rule(rule)


def check_micro_batches(config: ConfigDict | Settings) -> None:
    """Raises ConfigError if a batch cannot be computed in `training.gradient_accumulation_steps` micro-batches."""
    training = config.training
    if training.batch_size % training.gradient_accumulation_steps:
        raise ConfigError(
            f"training.batch_size = {training.batch_size}: must be divisible by "
            f"training.gradient_accumulation_steps = {training.gradient_accumulation_steps}"
        )
    if config.model.num_experts and training.load_balance_over == "batch" and training.gradient_accumulation_steps > 1:
        raise ConfigError(
            "training.load_balance_over = 'batch': must be 'sequence' if training.gradient_accumulation_steps = "
            f"{training.gradient_accumulation_steps}, since the balance of a batch is not a sum over micro-batches"
        )


def check_rule(rule: Any) -> None:
    """Raises ConfigError unless a rule of `optimizer.rules` is (regex, kind, value) with a value of its kind."""
    field = f"optimizer.rules has {rule!r}"
    if not (isinstance(rule, tuple | list) and len(rule) == 3 and isinstance(rule[0], str)):
        raise ConfigError(f"{field}: a rule is (regex on the parameter path, {' | '.join(RULE_KINDS)}, value)")
    pattern, kind, value = rule
    if kind not in RULE_KINDS:
        raise ConfigError(f"{field}: {kind!r} is not one of {', '.join(RULE_KINDS)}")
    if kind == "freeze" and not isinstance(value, bool):
        raise ConfigError(f"{field}: the value of freeze is True or False")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind != "freeze" and not (is_number and 0 <= value <= FLOAT32_MAX):
        raise ConfigError(f"{field}: the value of {kind} is a factor: a finite number, zero or more")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{field}: {pattern!r} is not a regular expression ({error})") from error


RULE_KINDS = ("learning_rate", "weight_decay", "freeze")
