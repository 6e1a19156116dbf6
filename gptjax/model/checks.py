"""Checks of the `model` section that families share. A family calls the checks of the fields that it reads.

They run before anything is resolved, so 0 may still stand for a size that is derived.
"""

from __future__ import annotations

from gptjax.config import ConfigError
from gptjax.settings import ModelSettings

MOST_PARAMETERS = 10**13  # a larger model is certainly a typo


def check_stack(model: ModelSettings) -> None:
    """Makes all checks of a stack of blocks (model/decoder.py), causal or not."""
    check_heads(model)
    check_size(model)
    check_positions(model)
    check_windows(model)
    bias_parts(model.bias)
    check_experts(model)


def check_experts(model: ModelSettings) -> None:
    """Raises ConfigError unless the fields of a mixture of experts fit each other."""
    if model.first_dense_width and not model.first_dense_layers:
        raise ConfigError(
            f"model.first_dense_width = {model.first_dense_width}: must be 0 where model.first_dense_layers is 0"
        )
    if not model.num_experts:
        for name in ("shared_experts", "router_bias", "expert_capacity", "first_dense_layers"):
            if model[name]:
                raise ConfigError(f"model.{name} = {model[name]}: needs experts, but model.num_experts is 0")
        return
    for name in ("num_layers", "num_encoder_layers"):
        if 0 < model[name] <= model.first_dense_layers:
            raise ConfigError(
                f"model.first_dense_layers = {model.first_dense_layers}: must be less than model.{name} = "
                f"{model[name]}, since the layers after them have the experts"
            )
    if model.matmul != "dtype":
        raise ConfigError(
            f"model.matmul = {model.matmul!r}: must be dtype where model.num_experts is not 0; experts multiply in "
            "model.dtype only"
        )
    if model.experts_per_token > model.num_experts:
        raise ConfigError(
            f"model.experts_per_token = {model.experts_per_token}: must be at most "
            f"model.num_experts = {model.num_experts}"
        )
    if 0 < model.expert_capacity < 1:
        raise ConfigError(
            f"model.expert_capacity = {model.expert_capacity}: must be at least 1, or 0: experts take all tokens"
        )
    if "feedforward" in bias_parts(model.bias):
        raise ConfigError(f"model.bias = {model.bias!r}: experts have no biases; leave out feedforward")


def check_heads(model: ModelSettings) -> None:
    """Raises ConfigError unless the width divides into heads, and query heads into groups."""
    if not model.head_width and model.width % model.num_heads:
        raise ConfigError(
            f"model.width = {model.width}: must be divisible by model.num_heads = {model.num_heads}, "
            "unless model.head_width is set"
        )
    num_kv_heads = model.num_kv_heads or model.num_heads
    if model.num_heads % num_kv_heads:
        raise ConfigError(
            f"model.num_heads = {model.num_heads}: must be divisible by model.num_kv_heads = {num_kv_heads}"
        )


def check_size(model: ModelSettings) -> None:
    """Raises ConfigError if the model has more than MOST_PARAMETERS, since its shapes would overflow."""
    num_kv_heads = model.num_kv_heads or model.num_heads
    head_width = model.head_width or model.width // model.num_heads
    width, heads = model.width, (2 * model.num_heads + 2 * num_kv_heads) * head_width
    inner = max(1, model.num_experts) * (model.feedforward_width or 4 * width)
    about = model.vocab_size * width + model.num_layers * width * (heads + 2 * inner)
    if about > MOST_PARAMETERS:
        raise ConfigError(
            f"model.width = {width}, model.num_layers = {model.num_layers}, model.num_heads = {model.num_heads}, "
            f"model.vocab_size = {model.vocab_size} and the widths of heads and feed-forward layers make a model of "
            f"about {about:.1e} parameters: at most {MOST_PARAMETERS:.0e} are supported"
        )


def check_positions(model: ModelSettings) -> None:
    """Raises ConfigError unless the fields of positions fit each other and the width of a head."""
    head_width = model.head_width or model.width // model.num_heads
    rotated = int(head_width * model.rope_fraction)
    if model.position == "rope" and (rotated % 2 or not rotated):
        raise ConfigError(
            f"model.position = 'rope' rotates pairs: the head width {head_width} must be even (model.head_width, or "
            f"model.width / model.num_heads where that is 0), and so must model.rope_fraction = {model.rope_fraction} "
            "of it, and not 0"
        )
    factors = model.rope_feature_factors
    if (factors and model.rope_scaling != "longrope") or not all(isinstance(f, int | float) and f > 0 for f in factors):
        raise ConfigError(f"model.rope_feature_factors = {factors}: must be positive, and only for longrope")
    if model.rope_scaling == "longrope" and len(factors) != rotated // 2:
        raise ConfigError(
            f"model.rope_feature_factors has {len(factors)} numbers: model.rope_scaling = 'longrope' needs one for "
            f"each of {rotated // 2} rotated pairs"
        )
    if model.position == "sinusoidal" and model.width % 2:
        raise ConfigError(f"model.position = 'sinusoidal' needs an even model.width, got {model.width}")


def check_windows(model: ModelSettings) -> None:
    """Raises ConfigError unless `window_pattern` is readable, and window and positions fit its marks."""
    if not model.window_pattern or set(model.window_pattern) - set("SLN"):
        raise ConfigError(
            f"model.window_pattern = {model.window_pattern!r}: must be made of S (sliding window), L (full context) "
            "and N (full context, no rotary positions)"
        )
    if model.position != "rope" and ("N" in model.window_pattern or model.rope_local_theta or model.rope_fraction < 1):
        raise ConfigError(
            f"model.position = {model.position!r}: layers marked N, model.rope_local_theta and model.rope_fraction "
            "need 'rope'"
        )
    if model.rope_local_theta and "S" not in model.window_pattern:
        raise ConfigError(f"model.rope_local_theta = {model.rope_local_theta}: no layer is marked S")
    if ("S" in model.window_pattern) != (model.window > 0):
        raise ConfigError(
            f"model.window = {model.window} with model.window_pattern = {model.window_pattern!r}: "
            "layers marked S need a window, and a window needs layers marked S"
        )


def check_length(model: ModelSettings, sequence_length: int) -> None:
    """Raises ConfigError if a row of a batch has more positions than the model."""
    if 0 < model.max_positions < sequence_length:
        raise ConfigError(
            f"data.sequence_length = {sequence_length}: must not exceed model.max_positions = {model.max_positions}"
        )


BIASES = ("qkv", "output", "feedforward", "norm")


def bias_parts(text: str) -> frozenset[str]:
    """The members of BIASES that `model.bias` names, such as {'qkv', 'output'} for 'qkv+output'.

    Raises:
      ConfigError: it names something that is not in BIASES.
    """
    parts = {"none": (), "all": BIASES}.get(text, text.split("+"))
    if set(parts) - set(BIASES):
        raise ConfigError(f"model.bias = {text!r}: expected none, all, or some of {', '.join(BIASES)} joined by '+'")
    return frozenset(parts)
