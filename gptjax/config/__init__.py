"""Configs: defaults, durations, validation, saving and loading, and the hash of a config.

A config file is Python: its `get_config(arg=None)` starts from `default()` and changes fields; flags override any field
(`--config.optimizer.learning_rate=3e-4`). `validate` checks the config before any device is used, and a plan
(planning/plan.py) replaces every `auto`, so that the config that is saved, hashed and printed is complete. Invalid
input raises `ConfigError`, which names the field, its value and what is allowed.

access.py         the default config, and its fields by their dotted names
durations.py      "300M tokens" in steps
validation.py     what is allowed
saved.py          config.json, and the hash of a config
user_code.py      config files, and functions that a config names
base_run.py       a config that continues from another run
meanings.py       every field with its default, its meaning and what is allowed
"""

from gptjax.config.access import allowed as allowed
from gptjax.config.access import default as default
from gptjax.config.access import flatten as flatten
from gptjax.config.access import get as get
from gptjax.config.access import suggestion as suggestion
from gptjax.config.durations import MOST_STEPS as MOST_STEPS
from gptjax.config.durations import Units as Units
from gptjax.config.saved import from_json as from_json
from gptjax.config.saved import hash_of as hash_of
from gptjax.config.saved import is_computed as is_computed
from gptjax.config.saved import to_json as to_json
from gptjax.config.validation import AUTO as AUTO
from gptjax.config.validation import FLOAT32_MAX as FLOAT32_MAX
from gptjax.config.validation import check_fields as check_fields
from gptjax.config.validation import check_micro_batches as check_micro_batches
from gptjax.config.validation import check_rule as check_rule
from gptjax.config.validation import check_values as check_values
from gptjax.config.validation import validate as validate
from gptjax.errors import ConfigError as ConfigError
from gptjax.errors import RunError as RunError
