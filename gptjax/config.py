"""Configs: defaults, durations, validation, saving and loading, and the hash of a config.

A config file is Python: its `get_config(arg=None)` starts from `default()` and changes fields; flags override any field
(`--config.optimizer.learning_rate=3e-4`). `validate` checks the config before any device is used, and a plan
(planning.py) replaces every `auto`, so that the config that is saved, hashed and printed is complete. Invalid input
raises `ConfigError`, which names the field, its value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from gptjax.errors import ConfigError
from gptjax.errors import RunError as RunError  # re-exported, so that both errors can be imported from here
from gptjax.json_files import parsed
from gptjax.settings import Allowed, Section, Settings, allowed_values, freeze, thaw


def default() -> ConfigDict:
    """Returns a config of all fields (settings.py) with values that train a small model well on a laptop."""
    return thaw(Settings()).lock()


# --- Durations ------------------------------------------------------------------------------------

_DURATION = re.compile(r"\s*(\d+(?:_\d+)*(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kKMGBT]?)\s*(steps?|tokens?|epochs?|%)?\s*")
_MULTIPLES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


@dataclasses.dataclass(frozen=True)
class Units:
    """Converts durations in any unit to steps.

    Attributes:
      tokens_per_step: tokens that one optimizer step consumes.
      steps_per_epoch: steps in one pass over the training data; None without data.
      total_steps: length of the run in steps, for durations in percent; None while it is not known.
    """

    tokens_per_step: int
    steps_per_epoch: float | None = None
    total_steps: int | None = None

    def steps(self, text: str | int, field: str) -> int:
        """'500 steps', '500', '300M tokens', '2 epochs' or '5%' → steps, rounded up.

        Raises:
          ConfigError: the text is not a duration, or its unit cannot be used here.
        """
        match = _DURATION.fullmatch(str(text))
        if not match:
            raise ConfigError(
                f"{field} = {text!r}: expected a duration such as '500 steps', '300M tokens' or '2 epochs'"
            )
        amount = float(match[1]) * _MULTIPLES[match[2]]
        if not math.isfinite(amount):
            raise ConfigError(f"{field} = {text!r}: the number is too large")
        unit = (match[3] or "step").rstrip("s")
        if unit == "token":
            amount /= self.tokens_per_step
        elif unit == "epoch":
            if self.steps_per_epoch is None:
                raise ConfigError(f"{field} = {text!r}: epochs require data; set data.path")
            amount *= self.steps_per_epoch
        elif unit == "%":
            if self.total_steps is None:
                raise ConfigError(f"{field} = {text!r}: cannot be a percentage; give steps, tokens or epochs")
            amount *= self.total_steps / 100
        if amount > MOST_STEPS:
            raise ConfigError(f"{field} = {text!r}: {amount:.3g} steps; must be at most {MOST_STEPS:,} steps")
        return math.ceil(amount - 1e-6)


# --- Validation -----------------------------------------------------------------------------------

AUTO = "auto"
FLOAT32_MAX = 3.4028234e38
MOST_STEPS = 2**31 - 1  # steps are counted in int32


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
    section comes first. For a former field, it says what replaced the field."""
    for former, successor in _REPLACED.items():
        if name in (former, former.rpartition(".")[2]):
            return f"; {former} was replaced by {successor}"
    known = list(known)
    elsewhere = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    close = elsewhere or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


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

# --- Saving, loading, identity --------------------------------------------------------------------

REMEDY = "delete it and give the run's training command again, which writes a new one"


def to_json(config: ConfigDict | Section) -> str:
    """Returns the whole config as indented JSON with sorted keys."""
    nested: dict[str, Any] = {}
    for field, value in flatten(config).items():
        *sections, name = field.split(".")
        functools.reduce(lambda d, s: d.setdefault(s, {}), sections, nested)[name] = value
    return json.dumps(nested, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def from_json(text: str | bytes, source: str = "config.json") -> Settings:
    """Reads a config that `to_json` wrote.

    Raises:
      ConfigError: the text is not JSON, or this version does not know a field.
    """
    saved = parsed(text, source, REMEDY)

    def tupled(value: Any) -> Any:
        return tuple(tupled(v) for v in value) if isinstance(value, list) else value

    config = default()
    known = flatten(config)
    for field, value in flatten(ConfigDict(saved)).items():
        if field not in known:
            raise ConfigError(
                f"{source}: unknown field {field}, written by another version of gptjax{suggestion(field, known)}"
            )
        *sections, name = field.split(".")
        try:
            functools.reduce(lambda c, s: c[s], sections, config)[name] = tupled(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{source}: {field} = {value!r}: expected {type(known[field]).__name__}") from None
    return freeze(config)


# The results of a run do not depend on these fields: where and how often results are written, and on which devices, in
# which pieces and by which kernels the same function is computed. model.dtype does change the results.
NOT_COMPUTED = (
    *("logging.", "checkpoint.", "mesh.", "evaluation.every", "evaluation.sample_", "evaluation.task_"),
    *("evaluation.tasks", "data.workers", "data.prefetch", "data.verify", "model.layers", "model.remat"),
    *("model.attention", "model.attention_block", "training.loss_chunk", "training.profile"),
    *("training.gradient_accumulation_steps", "training.batch_per_device", "optimizer.memory"),
)


def is_computed(field: str) -> bool:
    """Whether the results of a run depend on a field."""
    return not any(field == name or (name[-1] in "._" and field.startswith(name)) for name in NOT_COMPUTED)


def hash_of(config: ConfigDict | Section) -> str:
    """Returns twelve hexadecimal digits that identify what a resolved config computes.

    Fields of NOT_COMPUTED are ignored, and so are the parent folders of data and of another run's parameters: for
    'data/web=0.7,data/code=0.3', only 'web=0.7,code=0.3' counts. A run that is moved to another machine or mesh keeps
    its hash. Equal hashes mean equal results, provided that folders with the same name have the same content.
    """
    computed = {field: value for field, value in flatten(config).items() if is_computed(field)}
    for field in ("data.path", "training.init_from", "training.teacher", "training.reference"):
        computed[field] = ",".join(part.rstrip("/").rpartition("/")[2] for part in computed[field].split(","))
    text = json.dumps(computed, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
