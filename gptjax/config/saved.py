"""Saves and loads configs as JSON, and identifies what a config computes by a hash."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

from gptjax.config.access import default, flatten, suggestion
from gptjax.errors import ConfigError
from gptjax.files.json_files import parsed
from gptjax.settings import Section, Settings, freeze

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
