"""Which models llama.cpp computes, and their settings under its names; those of config.json are the source."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gptjax.config import ConfigError
from gptjax.interop.huggingface.families import family_of_config
from gptjax.interop.huggingface.llama import period_of
from gptjax.model.position import rope_frequencies

WINDOWED, FULL = "sliding_attention", "full_attention"  # layer_types


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp knows a family of transformers.

    Attributes:
      name: its architecture there.
      scalings: the types of scaled rotary positions that it computes.
      permuted: whether the rows of queries and keys are in the order of neighbouring pairs, rather than of halves.
      has_head: whether the output matrix has to be written even if it is the table of tokens.
      norm_offset: what is added to the scales of norms, which transformers stores without it.
      only: keys of config.json → the values that they may have; a key that is missing is right.
    """

    name: str
    scalings: tuple[str, ...] = ("linear", "yarn")
    permuted: bool = False
    has_head: bool = False
    norm_offset: float = 0.0
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


_NO_WINDOW = {"sliding_window": (None,), "use_sliding_window": (False,)}
_PLAIN = {"hidden_act": ("silu",)} | _NO_WINDOW
_NO_BIAS = {"attention_bias": (False,)}
_LLAMA = Architecture("llama", ("linear", "yarn", "llama3"), permuted=True, only=_PLAIN)
ARCHITECTURES = {  # by model_type
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": dataclasses.replace(_LLAMA, only=_PLAIN | {"norm_topk_prob": (True,)}),
    "qwen2": Architecture("qwen2", only=_PLAIN),
    "qwen3": Architecture("qwen3", only=_PLAIN | _NO_BIAS),
    "qwen3_moe": Architecture("qwen3moe", only=_PLAIN | _NO_BIAS | {"norm_topk_prob": (True,)}),
    "olmo2": Architecture("olmo2", has_head=True, only=_PLAIN | _NO_BIAS),
    "olmoe": Architecture("olmoe", has_head=True, only=_PLAIN | _NO_BIAS | {"norm_topk_prob": (False,)}),
    "gemma3_text": Architecture(
        "gemma3",
        ("linear",),
        norm_offset=1.0,
        only=_NO_BIAS
        | {"hidden_activation": ("gelu_pytorch_tanh",), "use_bidirectional_attention": (False,)}
        | {"attn_logit_softcapping": (None,), "final_logit_softcapping": (None,)},
    ),
}
WITH_GELU = ("gemma3_text",)


def check_model(content: Mapping[str, Any]) -> None:
    """Raises ConfigError if llama.cpp does not compute the model of this config.json exactly."""
    kind = content["model_type"]
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f"--format=gguf: model_type = {kind!r}: must be one of {known} (--family chooses)")
    architecture = ARCHITECTURES[kind]
    for key, allowed in architecture.only.items():
        if key in content and content[key] not in allowed:
            raise _refused(key, content[key], f"must be {allowed[0]!r}")
    rope = _rope(content)
    scaling = rope.get("rope_type", "default")
    if scaling not in ("default", *architecture.scalings):
        known = ", ".join(("default", *architecture.scalings))
        raise _refused("rope_type", scaling, f"must be one of {known} for {kind}")
    if rope.get("partial_rotary_factor", 1) != 1:
        raise _refused("partial_rotary_factor", rope["partial_rotary_factor"], "must be 1")
    if not rope.get("truncate", True):
        raise _refused("truncate", False, "must be True for the rope_type 'yarn'")
    if kind == "olmoe" and content["num_key_value_heads"] != content["num_attention_heads"]:
        heads = content["num_attention_heads"]
        raise _refused("num_key_value_heads", content["num_key_value_heads"], f"must be num_attention_heads = {heads}")
    if kind == "gemma3_text":
        scalar, width = content["query_pre_attn_scalar"], content["head_dim"]
        if scalar != width:
            raise _refused("query_pre_attn_scalar", scalar, f"must be head_dim = {width}")
        _period(content["layer_types"])


def add_settings(writer: Any, content: Mapping[str, Any]) -> None:
    """Adds what llama.cpp has to know of a model that `check_model` lets through, to a writer of the gguf package."""
    heads = content["num_attention_heads"]
    width = content.get("head_dim") or content["hidden_size"] // heads
    writer.add_context_length(content["max_position_embeddings"])
    writer.add_embedding_length(content["hidden_size"])
    writer.add_block_count(content["num_hidden_layers"])
    writer.add_feed_forward_length(content["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(content.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(content["rms_norm_eps"])
    writer.add_vocab_size(content["vocab_size"])
    _add_rope(writer, _rope(content), width)
    if experts := content.get("num_experts") or content.get("num_local_experts"):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(content["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(content.get("moe_intermediate_size") or content["intermediate_size"])
    if WINDOWED in content.get("layer_types", ()) and content["model_type"] == "gemma3_text":
        writer.add_sliding_window(content["sliding_window"])
        writer.add_sliding_window_pattern(_period(content["layer_types"]))
        writer.add_rope_freq_base_swa(float(content["rope_local_base_freq"]))


def rope_factors(content: Mapping[str, Any]) -> np.ndarray | None:
    """What each frequency of Llama 3's rotary positions is divided by, float32 [H/2]; None: they are not scaled so."""
    if _rope(content).get("rope_type") != "llama3":
        return None
    model, _ = family_of_config(content, "config.json").read(content, "config.json")
    plain = rope_frequencies(dataclasses.replace(model, rope_scaling="none"))
    return plain / rope_frequencies(model)


def _rope(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """rope_parameters, of layers with full attention if there are two kinds."""
    written = content.get("rope_parameters") or {}
    return written.get(FULL, written)


def _add_rope(writer: Any, rope: Mapping[str, Any], width: int) -> None:
    import gguf

    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
    writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast", 32.0))
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow", 1.0))
        if factor := rope.get("attention_factor"):  # there it multiplies the usual one
            writer.add_rope_scaling_attn_factors(factor / (1 + 0.1 * math.log(rope["factor"])))


def _period(types: list[str]) -> int:
    """n, where every n-th layer sees the full context and the others have a window; 0: all have one."""
    if FULL not in types:
        return 0
    if (period := period_of(types)) is None:
        raise _refused("layer_types", types, f"every n-th must be {FULL}, and the others {WINDOWED}")
    return period


def _refused(key: str, value: Any, rule: str) -> ConfigError:
    return ConfigError(f"--format=gguf: {key} = {value!r}: {rule}")
