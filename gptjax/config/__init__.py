"""Configs: defaults, durations, validation, saving and loading, and the hash of a config.

A config file is Python: its `get_config(arg=None)` starts from `default()` and changes fields; flags override any field
(`--config.optimizer.learning_rate=3e-4`). `validate` checks the config before any device is used, and a plan
(planning/run_plan.py) replaces every `auto`, so that the config that is saved, hashed and printed is complete. Invalid
input raises `ConfigError`, which names the field, its value and what is allowed.

access.py         the default config, and its fields by their dotted names
durations.py      "300M tokens" in steps
validation.py     what is allowed
saved.py          config.json, and the hash of a config
user_code.py      config files; named_functions.py: functions that a config names
base_run.py       a config that continues from another run
meanings.py       every field with its default, its meaning and what is allowed
"""

from gptjax.config.access import allowed, default, flatten, get, suggestion
from gptjax.config.durations import MOST_STEPS, Units
from gptjax.config.saved import from_json, hash_of, is_computed, to_json
from gptjax.config.validation import (
    AUTO,
    FLOAT32_MAX,
    check_fields,
    check_micro_batches,
    check_rule,
    check_values,
    validate,
)
from gptjax.errors import ConfigError, RunError

__all__ = [
    "AUTO",
    "FLOAT32_MAX",
    "MOST_STEPS",
    "ConfigError",
    "RunError",
    "Units",
    "allowed",
    "check_fields",
    "check_micro_batches",
    "check_rule",
    "check_values",
    "default",
    "flatten",
    "from_json",
    "get",
    "hash_of",
    "is_computed",
    "suggestion",
    "to_json",
    "validate",
]
