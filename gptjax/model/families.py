"""The model families. Each has a file, and a row here that gives its name in a config.

Code that trains, plans, counts, saves or generates gets a config's family from here and depends on no particular model.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

import jax

from gptjax.config import ConfigError, suggestion
from gptjax.model import lora
from gptjax.model.classifier import ClassifierFamily
from gptjax.model.decoder_family import DecoderFamily
from gptjax.model.encoder import EncoderFamily
from gptjax.model.encoder_decoder import EncoderDecoderFamily
from gptjax.model.family import Family
from gptjax.settings import ModelSettings
from gptjax.user_code import called, is_named, named_function

FAMILIES: dict[str, type[Family]] = {
    "decoder": DecoderFamily,
    "encoder": EncoderFamily,
    "encoder_decoder": EncoderDecoderFamily,
    "classifier": ClassifierFamily,
}
FIELD = "model.family"


def family_named(name: str, field: str = FIELD) -> type[Family]:
    """The family that `model.family` or another field names: a key of `FAMILIES`, or your own 'module:Class'.

    Raises:
      ConfigError: there is no such family, or the class is not a Family or lacks a method.
    """
    if not is_named(name):
        if name not in FAMILIES:
            raise ConfigError(
                f"{field} = {name!r}: expected one of {', '.join(FAMILIES)}, or module:Class of your own"
                f"{suggestion(name, FAMILIES)}"
            )
        return FAMILIES[name]
    own = named_function(field, name)
    if not (inspect.isclass(own) and issubclass(own, Family)):
        raise ConfigError(f"{field} = {name!r}: must be a subclass of gptjax.model.family.Family")
    if missing := sorted(own.__abstractmethods__):
        raise ConfigError(f"{field} = {name!r}: must define {', '.join(missing)}")
    return own


def family_of(config_model: ModelSettings) -> Family:
    """The family of a resolved `model` section; raises as `family_named`."""
    name = config_model.family
    kind = family_named(name)
    return called(FIELD, name, lambda: kind(config_model)) if is_named(name) else kind(config_model)


def merged_model(config_model: ModelSettings, params: Any) -> tuple[Any, ModelSettings]:
    """The parameters and settings of the same function without adapters (model/lora.py)."""
    if not config_model.lora_rank:
        return params, config_model
    merge = functools.partial(lora.merged, config_model, family_of(config_model).declarations)
    return jax.jit(merge)(params), lora.without_adapters(config_model)


def reading_family_of(config_model: ModelSettings) -> Family:
    """The family of a resolved `model` section, for texts that it is not trained on; raises as `family_named`.

    It multiplies in `model.dtype`: 8-bit products share scales among rows, so a text's result would depend on the other
    texts of its batch.
    """
    return family_of(dataclasses.replace(config_model, matmul="dtype"))


def validate_model(config: Any) -> None:
    """Checks the `model` section of a config by the rules of its family.

    Raises:
      ConfigError: as `family_named` does, or names the field that is invalid.
    """
    family_named(config.model.family).validate(config.model, config.data.sequence_length)
