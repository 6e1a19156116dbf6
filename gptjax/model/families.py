"""The model families. Each has a file, and a row here that gives its name in a config.

Code that trains, plans, counts, saves or generates gets a config's family from here and depends on no particular model.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax

from gptjax.config.named_functions import called, is_named
from gptjax.model import lora
from gptjax.model.classifier import ClassifierFamily
from gptjax.model.decoder_family import DecoderFamily
from gptjax.model.encoder import EncoderFamily
from gptjax.model.encoder_decoder import EncoderDecoderFamily
from gptjax.model.family import Family, named_family
from gptjax.settings import ModelSettings

FAMILIES: dict[str, type[Family]] = {
    "decoder": DecoderFamily,
    "encoder": EncoderFamily,
    "encoder_decoder": EncoderDecoderFamily,
    "classifier": ClassifierFamily,
}
FIELD = "model.family"


def family_named(name: str) -> type[Family]:
    """The family that `model.family` names: a key of `FAMILIES`, or your own 'module:Class'; raises as
    `named_family`."""
    return named_family(FAMILIES, FIELD, name)


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
