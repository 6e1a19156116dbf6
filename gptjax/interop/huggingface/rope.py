"""Rotary positions in a config.json: under the keys of transformers 4 and of transformers 5, which ignore each other's.

    "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, …}          4, llama.cpp, MLX
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, …}       5, vLLM

Both are written. If both are there, they must agree.
"""

from __future__ import annotations

from typing import Any

from gptjax.config import ConfigError
from gptjax.interop.huggingface.keys import REQUIRED, Keys
from gptjax.interop.huggingface.rules import DEFAULTS, Rule
from gptjax.settings import ModelSettings

# rope_type → (key, setting, default)
SCALINGS: dict[str, tuple[tuple[str, str, Any], ...]] = {
    "linear": (("factor", "rope_factor", REQUIRED),),
    "llama3": (
        ("factor", "rope_factor", REQUIRED),
        ("low_freq_factor", "rope_low_frequency_factor", REQUIRED),
        ("high_freq_factor", "rope_high_frequency_factor", REQUIRED),
        ("original_max_position_embeddings", "rope_original_positions", REQUIRED),
    ),
    "yarn": (
        ("factor", "rope_factor", REQUIRED),
        ("beta_slow", "rope_low_frequency_factor", 1.0),
        ("beta_fast", "rope_high_frequency_factor", 32.0),
        ("original_max_position_embeddings", "rope_original_positions", REQUIRED),
        ("attention_factor", "rope_attention_factor", 0.0),
        ("truncate", "rope_truncate", True),
    ),
}
_ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def rope(theta: float = 10_000.0, partial: float | None = None, scalings: tuple[str, ...] = tuple(SCALINGS)) -> Rule:
    """Rotary positions of a family.

    Args:
      theta, partial: what transformers takes where the base, or the rotated share of a head, is missing; None: a head
        is always rotated as a whole.
    """

    def write(model: ModelSettings) -> dict[str, Any]:
        written = written_rope(model)
        old: dict[str, Any] = {"rope_theta": model.rope_theta, "rope_scaling": None}
        if model.rope_scaling != "none":
            old["rope_scaling"] = {name: value for name, value in written.items() if name != "rope_theta"}
        if partial is not None:
            written = written | {"partial_rotary_factor": model.rope_fraction}
            old["partial_rotary_factor"] = model.rope_fraction
        return {**old, "rope_parameters": written}

    def read(keys: Keys) -> dict[str, Any]:
        new, old = keys.inside("rope_parameters"), keys.inside("rope_scaling")
        found = [each for each in (new, old) if each.content]
        base = keys.get("rope_theta", float, None)
        several = [read_rope(each, theta if base is None else base, scalings) for each in found]
        several = several or [{"rope_theta": theta if base is None else base}]
        if any(each != several[0] for each in several) or base not in (None, several[0]["rope_theta"]):
            raise ConfigError(
                f"{keys.source}: rope_parameters and the older keys rope_theta and rope_scaling disagree: remove those "
                "that are wrong"
            )
        settings = dict(several[0])
        if partial is not None:
            outer = keys.get("partial_rotary_factor", float, partial)
            settings["rope_fraction"] = new.get("partial_rotary_factor", float, outer)
        return settings

    return Rule(write, read)


def written_rope(model: ModelSettings) -> dict[str, Any]:
    """rope_parameters, with the base."""
    kind = "default" if model.rope_scaling == "none" else model.rope_scaling
    written: dict[str, Any] = {"rope_type": kind, "rope_theta": model.rope_theta}
    for name, ours, default in SCALINGS.get(model.rope_scaling, ()):
        if model[ours] or default is REQUIRED:
            written[name] = model[ours]
    if kind == "yarn":
        written["truncate"] = model.rope_truncate
    return written


def read_rope(keys: Keys, theta: float, scalings: tuple[str, ...] = tuple(SCALINGS)) -> dict[str, Any]:
    """Settings from rope_parameters or rope_scaling.

    Raises:
      ConfigError: it is of another type, or has a key of unknown meaning.
    """
    kind = keys.get("rope_type", str, keys.get("type", str, "default"))
    settings: dict[str, Any] = {"rope_theta": keys.get("rope_theta", float, theta)}
    if kind == "default":
        return settings
    if kind not in scalings:
        raise keys.error("rope_type", kind, f"one of {', '.join(('default', *scalings))}")
    settings["rope_scaling"] = kind
    for name, ours, default in SCALINGS[kind]:
        of = type(DEFAULTS[ours])
        settings[ours] = keys.get(name, of, default)
    if unknown := sorted(keys.content.keys() - keys.read - _ALWAYS):
        raise keys.error(unknown[0], keys.content[unknown[0]], "left out, since gptjax has no such setting")
    return settings
