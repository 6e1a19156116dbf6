"""Which settings of `model` mean the same function: settings without effect are set to their defaults."""

from __future__ import annotations

import math
from typing import Any

from gptjax.model.checks import bias_parts
from gptjax.model.lora import FIELDS as ADAPTER_FIELDS
from gptjax.settings import ModelSettings

# These are about training, or about how the same function is computed. Experts drop tokens in training only.
NOT_OF_THE_FUNCTION = {
    *("initialization", "initialization_std", "embedding_std", "head_std", "dropout", "attention_dropout"),
    *("dtype", "matmul", "layers", "remat", "attention", "attention_block", "expert_products", "expert_capacity"),
    *("lora_base", *(f"lora_{field}" for field in ADAPTER_FIELDS)),
}
_SCALED_BY = {
    "rope_factor": ("linear", "llama3", "yarn", "longrope"),
    "rope_low_frequency_factor": ("llama3", "yarn"),
    "rope_high_frequency_factor": ("llama3", "yarn"),
    "rope_original_positions": ("llama3", "yarn", "longrope"),
    "rope_feature_factors": ("longrope",),
    "rope_attention_factor": ("yarn", "longrope"),
    "rope_truncate": ("yarn",),
}
_OF_EXPERTS = (
    "experts_per_token",
    "shared_experts",
    "router_scores",
    "router_normalized",
    "router_scale",
    "router_bias",
)
_OF_PAIRS = ("num_encoder_layers", "source_vocab_size", "max_source_positions", "shared_embeddings")
_OF_CLASSIFIERS = ("body", "num_classes", "pooling")


def function_of(model: ModelSettings) -> dict[str, Any]:
    """The settings that the model's function depends on, each in one form, for resolved settings."""
    values = {name: value for name, value in model.items() if name not in NOT_OF_THE_FUNCTION}

    def without(*names: str) -> None:
        values.update({name: getattr(ModelSettings, name) for name in names})

    pattern = whole_pattern(model)
    longest = model.max_positions
    if model.family == "encoder_decoder":
        longest = max(longest, model.max_source_positions)
    if model.window >= longest and not model.rope_local_theta:
        pattern = pattern.replace("S", "L")  # the window is as long as the context
    values["window_pattern"] = pattern
    values["attention_scale"] = model.attention_scale or model.head_width**-0.5
    parts = set(bias_parts(model.bias))
    if model.norm == "rmsnorm":
        parts.discard("norm")
    values["bias"] = "+".join(sorted(parts)) or "none"
    if "S" not in pattern:
        without("window", "rope_local_theta")
    elif not model.rope_local_theta and model.rope_scaling == "none":
        values["rope_local_theta"] = model.rope_theta
    if model.position != "rope":
        without(*(name for name in values if name.startswith("rope_")))
    without(*(name for name, kinds in _SCALED_BY.items() if model.rope_scaling not in kinds))
    if not model.qk_norm:
        without("qk_norm_over")
    if not model.num_experts:
        without(*_OF_EXPERTS, "first_dense_layers", "first_dense_width")
    elif not model.first_dense_layers:
        without("first_dense_width")
    if model.family != "encoder_decoder":
        without(*_OF_PAIRS)
    if model.family != "classifier":
        without(*_OF_CLASSIFIERS)
    return values


def differences_of(model: ModelSettings, other: ModelSettings) -> dict[str, tuple[Any, Any]]:
    """Setting → (its value in `model`, in `other`), for all that make the two functions differ."""
    ours, theirs = function_of(model), function_of(other)
    return {name: (value, theirs[name]) for name, value in ours.items() if not _alike(value, theirs[name])}


def _alike(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, float | int):
        return math.isclose(value, other, rel_tol=1e-12)
    return value == other


def whole_pattern(model: ModelSettings) -> str:
    """The mark of every layer: S (sliding window), L (full context) or N (full context, not rotated)."""
    repeats = -(-model.num_layers // len(model.window_pattern))
    return (model.window_pattern * repeats)[: model.num_layers]


def shortest_pattern(marks: str) -> str:
    """The shortest pattern that gives these marks when it is repeated: 'SSLSSL' → 'SSL'."""
    for length in range(1, len(marks) + 1):
        if (marks[:length] * len(marks))[: len(marks)] == marks:
            return marks[:length]
    return "L"
