"""The reference of a loss: the model that the run starts from (`training.init_from`), or `training.reference`.

If adapters are all that a run trains, its parameters without them are the reference, and there is no second copy.
Otherwise the reference is a companion (training/companions.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptjax.model import lora
from gptjax.settings import Settings


def is_own_base(config: Settings) -> bool:
    """Whether the reference is the model without its adapters."""
    return bool(config.model.lora_rank) and not (config.model.lora_also or config.training.reference)


def companions_of(config: Settings) -> Mapping[str, str]:
    """The companions of an objective with a reference, as `Objective.companions` has them."""
    return {} if is_own_base(config) else field_of(config)


def field_of(config: Settings) -> Mapping[str, str]:
    """The name of the reference, and the field that names its run, in a run that reads it as a companion."""
    return {"reference": "training.reference" if config.training.reference else "training.init_from"}


def reference_of(config: Settings, model: Any, params: Any, companions: Mapping[str, Any]) -> tuple[Any, Any]:
    """(module, parameters) of the reference of a model with these parameters."""
    if is_own_base(config):
        return model, lora.base_of(params)
    return companions["reference"].model, companions["reference"].params
