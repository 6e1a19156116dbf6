"""The families that models are exported to and imported from, and which of them can express a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptjax.config import ConfigError, suggestion
from gptjax.interop.huggingface.experts import GLM4_MOE, GPT_OSS, MIXTRAL, OLMOE, QWEN3_MOE
from gptjax.interop.huggingface.family import UNWRITABLE, Family
from gptjax.interop.huggingface.gemma import GEMMA2, GEMMA3, T5GEMMA
from gptjax.interop.huggingface.gpt2 import GPT2, GPT_NEOX, MPT
from gptjax.interop.huggingface.llama import GRANITE, LLAMA, MISTRAL, OLMO2, PHI3, QWEN2, QWEN3, SMOLLM3
from gptjax.interop.huggingface.marian import MARIAN
from gptjax.settings import ModelSettings

# In the order in which an export prefers them: what most other programs load comes first.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(LLAMA, QWEN3, QWEN2, MISTRAL, SMOLLM3, OLMO2, GRANITE, PHI3, GEMMA2, GEMMA3, GPT2, GPT_NEOX, MPT),
        *(QWEN3_MOE, OLMOE, MIXTRAL, GLM4_MOE, GPT_OSS, T5GEMMA, MARIAN),
    )
}
AUTO = "auto"
NEAREST = 6  # families whose obstacles a message lists


def family_for(model: ModelSettings, name: str = AUTO) -> Family:
    """The family of an export.

    Args:
      model: the resolved `model` section of a run, without adapters.
      name: of a family, or AUTO: the first that can express the model.

    Raises:
      ConfigError: there is no such family, or it cannot express the model; the message names the settings in the way.
    """
    if name != AUTO:
        if name not in FAMILIES:
            known = ", ".join((AUTO, *FAMILIES))
            raise ConfigError(f"--family={name}: must be one of {known}{suggestion(name, FAMILIES)}")
        if found := FAMILIES[name].obstacles(model):
            raise ConfigError(f"--family={name}: {FAMILIES[name].architecture} cannot express {_listed(found)}")
        return FAMILIES[name]
    in_the_way = {each: family.obstacles(model) for each, family in FAMILIES.items() if family.ours == model.family}
    if not in_the_way:
        raise ConfigError(
            f"model.family = {model.family!r}: only models of the families decoder and encoder_decoder can be exported"
        )
    for each, found in in_the_way.items():
        if not found:
            return FAMILIES[each]
    nearest = sorted(in_the_way, key=lambda each: (UNWRITABLE in in_the_way[each], len(in_the_way[each])))
    lines = "; ".join(f"{each}: {_listed(in_the_way[each])}" for each in nearest[:NEAREST])
    others = f"; for the {len(nearest) - NEAREST} others, more" if len(nearest) > NEAREST else ""
    raise ConfigError(f"no family of transformers computes this model's function. In the way are, for {lines}{others}")


def family_of_config(content: Mapping[str, Any], source: str) -> Family:
    """The family of a config.json.

    Raises:
      ConfigError: it does not say which, or gptjax does not know it.
    """
    model_type, architectures = content.get("model_type"), content.get("architectures")
    known = ", ".join(sorted(family.model_type for family in FAMILIES.values()))
    found = [family for family in FAMILIES.values() if family.model_type == model_type]
    if not found:
        hint = suggestion(model_type, [f.model_type for f in FAMILIES.values()]) if isinstance(model_type, str) else ""
        raise ConfigError(f"{source}: model_type = {model_type!r}: must be one of {known}{hint}")
    if architectures and not (isinstance(architectures, list) and found[0].architecture in architectures):
        raise ConfigError(
            f"{source}: architectures = {architectures!r}: must be {found[0].architecture}; models with other heads "
            "cannot be imported"
        )
    return found[0]


def _listed(obstacles: Mapping[str, tuple[Any, Any]]) -> str:
    """'model.logit_softcap = 30.0 (it has 0.0), …'"""
    if UNWRITABLE in obstacles:
        return obstacles[UNWRITABLE][0]
    return ", ".join(f"model.{name} = {ours!r} (it has {theirs!r})" for name, (ours, theirs) in obstacles.items())
