"""Adapters over the model of a run, each from a folder in PEFT's layout or from another run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.config import ConfigError
from gptjax.files.paths import CONFIG, local_path
from gptjax.interop.peft import read_adapter
from gptjax.model import lora
from gptjax.model.families import family_of, merged_model
from gptjax.model.parameters import abstract_params
from gptjax.settings import ModelSettings, Settings
from gptjax.training.checkpoints.format import on_one_device
from gptjax.training.checkpoints.loading import load_params, saved_config, saved_metadata
from gptjax.training.checkpoints.run_metadata import base_of_run

FOLDER = "adapters"  # in the base's run: adapters that can be named


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter over a base.

    Attributes:
      config: the settings of the base with the adapter.
      arrays: its arrays, in a nested dict like that of the parameters.
      base: the hash of the base that it was trained on; '': not known.
      template: the fields of the chat template that it was trained with; empty: none, or not known.
    """

    config: ModelSettings
    arrays: dict[str, Any]
    base: str
    template: dict[str, Any] = dataclasses.field(default_factory=dict)

    def over(self, params: Mapping[str, Any]) -> tuple[Any, ModelSettings]:
        """The parameters of the base with this adapter merged, and their settings."""
        both = flatten_dict(params) | flatten_dict(self.arrays)
        return merged_model(self.config, unflatten_dict(jax.tree.map(jnp.asarray, both)))


def load_adapter(name: str, workdir: str, config: ModelSettings, base: str) -> Adapter:
    """Loads an adapter for a base.

    Args:
      name: a folder in PEFT's layout, a run with adapters, or a name of one of these in WORKDIR/adapters.
      workdir, config, base: the base's run, its settings and the hash of its parameters.

    Raises:
      ConfigError: there is no such adapter, it is damaged, or it belongs to another base.
    """
    flag = f"--adapter={name}"
    path = local_path(name, "--adapter")
    named = Path(workdir) / FOLDER / name
    if not path.is_dir() and named.is_dir():
        path = named
    if not path.is_dir():
        raise ConfigError(f"{flag}: must be a folder, or the name of one in {named.parent}; there is none")
    adapter = _of_run(path, config, flag) if (path / CONFIG).exists() else Adapter(*read_adapter(path, config))
    if adapter.base and adapter.base != base:
        raise ConfigError(
            f"{flag}: it was trained on the parameters with hash {adapter.base}, but those of --workdir={workdir} have "
            f"hash {base}: an adapter only fits the model that it was trained on"
        )
    return adapter


def _of_run(path: Path, config: ModelSettings, flag: str) -> Adapter:
    model, params, base = adapted_run(path, flag)
    shapes = {key: x.shape for key, x in flatten_dict(lora.base_of(params)).items()}
    wanted = {key: p.shape for key, p in flatten_dict(family_of(config).declarations).items()}
    if shapes != wanted and model.vocab_size > config.vocab_size:
        raise ConfigError(
            f"{flag}: the run's vocabulary has grown from {config.vocab_size:,} to {model.vocab_size:,} tokens, so the "
            f"adapter alone does not fit the model of --workdir: use --workdir={path}, or make a run of both by "
            f"gptjax adapter --workdir={path} --output=FOLDER --merge"
        )
    if shapes != wanted:
        raise ConfigError(f"{flag}: the run's base has other parameters than the model of --workdir")
    declared = flatten_dict(family_of(model).declarations)
    arrays = {key: x for key, x in flatten_dict(params).items() if declared[key].trained}
    execution = {name: config[name] for name in ("dtype", "layers", "attention", "attention_block")}
    stored = dataclasses.replace(model, lora_base="float32", **execution)
    template = (saved_metadata(path) or {}).get("fingerprint", {}).get("template", {})
    return Adapter(stored, unflatten_dict(arrays), base.get("hash", ""), template)


def adapted_run(path: Path | str, setting: str, which: str | int = "latest") -> tuple[ModelSettings, Any, dict]:
    """(settings, parameters with adapters, what is known of the base) of a run that trains adapters.

    Raises:
      ConfigError: the run trains none.
    """
    config: Settings = saved_config(path)
    if not config.model.lora_rank:
        raise ConfigError(f"{setting}: must be a run that trains adapters, but model.lora_rank is 0 there")
    like = on_one_device(abstract_params(family_of(config.model).declarations))
    params, _ = load_params(path, which, like, setting=setting)
    return config.model, params, base_of_run(path)
