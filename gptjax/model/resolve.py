"""Replaces every `auto` of a config once, at the start of a run, so that the choice can be printed and saved."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from gptjax.model.attention_backends import needs_of, select_backend
from gptjax.model.feedforward import is_gated
from gptjax.settings import ModelSettings, freeze_section

# These are decided last, when the platform is known.
BY_PLATFORM = ("dtype", "layers", "attention", "attention_block", "expert_products")
# With more layers, compiling an unrolled stack takes too long for the few per cent of step time that it saves.
_UNROLLED_LAYERS = 32


def resolve_model(
    config_model: Any, *, platform: str, vocab_size: int, sequence_length: int, packed: bool = False
) -> ModelSettings:
    """The model section with every `auto` and every 0 that stands for "derived" replaced.

    Args:
      platform: 'cpu', 'gpu' or 'tpu', as JAX names it; '': unknown, and the fields of BY_PLATFORM stay unresolved.
      vocab_size: the tokenizer's; used if the config gives none.
      sequence_length: T of the windows that the model will see.
      packed: whether the windows come with segment ids.

    Raises:
      ConfigError: the attention backend that the config names cannot run on this platform.
    """
    model = ConfigDict(dict(config_model.items()))
    model.vocab_size = model.vocab_size or vocab_size
    model.num_kv_heads = model.num_kv_heads or model.num_heads
    model.head_width = model.head_width or model.width // model.num_heads
    model.feedforward_width = model.feedforward_width or _feedforward_width(model.feedforward, model.width)
    if model.first_dense_layers:
        model.first_dense_width = model.first_dense_width or _feedforward_width(model.feedforward, model.width)
    model.max_positions = model.max_positions or sequence_length
    if not platform:
        return freeze_section(ModelSettings, model)
    if model.dtype == "auto":
        model.dtype = "float32" if platform == "cpu" else "bfloat16"  # few CPUs have bfloat16 units
    if model.layers == "auto":
        model.layers = "unroll" if model.num_layers <= _UNROLLED_LAYERS else "scan"
    model.attention = select_backend(
        model.attention,
        platform=platform,
        dtype=model.dtype,
        sequence_length=sequence_length,
        head_width=model.head_width,
        packed=packed,
        needs=needs_of(model),
    )
    if model.num_experts and model.expert_products == "auto":
        model.expert_products = {"cpu": "loop", "tpu": "ragged"}.get(platform, "gathered")
    model.attention_block = model.attention_block or attention_block(platform, sequence_length)
    return freeze_section(ModelSettings, model)


def attention_block(platform: str, sequence_length: int) -> int:
    """On a CPU, a block's weights for all keys of one head stay within half a MiB of its cache (measured)."""
    if platform != "cpu":
        return 512
    return 64 if sequence_length <= 2048 else 32


def _feedforward_width(kind: str, width: int) -> int:
    """4 D; with a gate, which adds a third matrix, 8/3 D rounded up to a multiple of 64: both have the same number of
    parameters."""
    if is_gated(kind):
        return -(-8 * width // (3 * 64)) * 64
    return 4 * width
