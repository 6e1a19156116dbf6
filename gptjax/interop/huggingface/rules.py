"""Rules that relate keys of a config.json to settings of `model`, each declared once for both directions.

    same("hidden_size", "width")                 a key that is a setting under another name
    says("hidden_act", "silu")                   a key that must have one value
    fixed(norm_placement="sandwich")             settings that every model of a family has
    choice("hidden_act", {"silu": "swiglu"}, "feedforward")
    rope(theta=10_000.0), windows_by_type(), attention_bias() …

To write a config.json, a rule need not check that it can express a model: what was written is read back, and every
setting must come back (families.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gptjax.interop.huggingface.keys import REQUIRED, Keys
from gptjax.model.checks import bias_parts
from gptjax.settings import ModelSettings

DEFAULTS = ModelSettings()


@dataclass(frozen=True)
class Rule:
    """write: settings → keys of config.json. read: its keys → settings."""

    write: Callable[[ModelSettings], dict[str, Any]]
    read: Callable[[Keys], dict[str, Any]]


def same(theirs: str, ours: str, default: Any = REQUIRED, least: int = 1) -> Rule:
    """A key that is a setting. default: what transformers takes where the key is missing. least: of whole numbers."""
    kind = type(DEFAULTS[ours])

    def read(keys: Keys) -> dict[str, Any]:
        value = keys.get(theirs, kind, default)
        if kind is int and value < least:  # 0 stands for "derived" in our settings
            raise keys.error(theirs, value, f"at least {least}")
        return {ours: kind(value)}

    return Rule(lambda model: {theirs: model[ours]}, read)


def renamed(theirs: str, other: str, ours: str) -> Rule:
    """A key that some versions of transformers write under another name."""

    def read(keys: Keys) -> dict[str, Any]:
        keys.read.update((theirs, other))
        return same(other if keys.content.get(theirs) is None and other in keys.content else theirs, ours).read(keys)

    return Rule(lambda model: {theirs: model[ours]}, read)


def scaled(
    theirs: str, ours: str, forth: Callable[[float], float], back: Callable[[float], float], default: Any
) -> Rule:
    """A positive number that is a function of a setting. forth: setting → key; back: key → setting."""

    def read(keys: Keys) -> dict[str, Any]:
        value = keys.get(theirs, float, default)
        if value <= 0:
            raise keys.error(theirs, value, "positive")
        return {ours: back(value)}

    return Rule(lambda model: {theirs: tidy(forth(model[ours]))}, read)


def says(theirs: str, value: Any, default: Any = None) -> Rule:
    """A key that must have this value. default: what transformers takes where the key is missing."""

    def read(keys: Keys) -> dict[str, Any]:
        keys.read.add(theirs)
        found = keys.content.get(theirs)
        if found is None:
            found = value if default is None else default
        if found != value:
            raise keys.error(theirs, found, f"{value!r}, since gptjax has no such model otherwise")
        return {}

    return Rule(lambda model: {theirs: value}, read)


def optional(theirs: str, ours: str, default: float = 0.0) -> Rule:
    """A number that is null where our setting is 0. default: what transformers takes where the key is missing."""

    def read(keys: Keys) -> dict[str, Any]:
        return {ours: keys.get(theirs, float, 0.0 if theirs in keys.content else default)}

    return Rule(lambda model: {theirs: model[ours] or None}, read)


def without_effect(*theirs: str) -> Rule:
    """Keys that say nothing about a model that the other rules can express."""

    def read(keys: Keys) -> dict[str, Any]:
        keys.read.update(theirs)
        return {}

    return Rule(lambda model: {}, read)


def fixed(**ours: Any) -> Rule:
    """Settings that every model of the family has."""
    return Rule(lambda model: {}, lambda keys: ours)


def choice(theirs: str, values: Mapping[str, Any], ours: str, default: Any = REQUIRED) -> Rule:
    """A key whose values stand for those of a setting; the first of several that mean the same is written."""

    def write(model: ModelSettings) -> dict[str, Any]:
        return {theirs: next((name for name, value in values.items() if value == model[ours]), next(iter(values)))}

    def read(keys: Keys) -> dict[str, Any]:
        name = keys.get(theirs, str, default)
        if name not in values:
            raise keys.error(theirs, name, f"one of {', '.join(values)}")
        return {ours: values[name]}

    return Rule(write, read)


GATED = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu", "gelu": "geglu_exact"}
PLAIN = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu": "gelu_exact", "relu": "relu", "relu2": "relu2"}


def biases(**keys_of: tuple[str, bool]) -> Rule:
    """Which parts have biases. part="qkv": (key, default); a key that several parts share stands for all of them."""

    def write(model: ModelSettings) -> dict[str, Any]:
        parts = bias_parts(model.bias)
        return {key: part in parts for part, (key, _) in keys_of.items()}

    def read(keys: Keys) -> dict[str, Any]:
        found = [part for part, (key, default) in keys_of.items() if keys.get(key, bool, default)]
        return {"bias": "+".join(found) or "none"}

    return Rule(write, read)


def head_width(default_of_family: int = 0) -> Rule:
    """head_dim; without it, width / heads, or what the family's class has as its default."""

    def read(keys: Keys) -> dict[str, Any]:
        given = keys.get("head_dim", int, default_of_family)
        heads = keys.get("num_attention_heads", int)
        if not given and (heads < 1 or keys.get("hidden_size", int) % heads):
            raise keys.error("num_attention_heads", heads, "a divisor of hidden_size, or head_dim must be given")
        return {"head_width": given or keys.get("hidden_size", int) // heads}

    return Rule(lambda model: {"head_dim": model.head_width}, read)


def divided_head_width() -> Rule:
    """For families without head_dim: the width of a head is always width / heads."""
    rule = head_width()
    return Rule(lambda model: {}, lambda keys: rule.read(keys))


def kv_heads() -> Rule:
    """num_key_value_heads; without it, as many as heads."""

    def read(keys: Keys) -> dict[str, Any]:
        return same("num_key_value_heads", "num_kv_heads", keys.get("num_attention_heads", int)).read(keys)

    return Rule(lambda model: {"num_key_value_heads": model.num_kv_heads}, read)


def tidy(number: float) -> float | int:
    """The whole number that rounding has missed, or the number itself."""
    nearest = round(number)
    return nearest if nearest and abs(number - nearest) < 1e-9 * abs(nearest) else number
