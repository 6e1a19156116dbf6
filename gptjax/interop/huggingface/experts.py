"""Mixtures of experts: OLMoE, Qwen3-MoE, Mixtral, GLM-4.5, and gpt-oss with one expert.

Files on the hub have a tensor for each expert's matrix; transformers 5 joins them to one for all experts in memory,
and may save it so. Both layouts are read, and the first one is written, which every program reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.keys import Keys
from gptjax.interop.huggingface.llama import (
    ATTENTION_BIAS,
    PRE,
    TIED,
    attention_tensors,
    feedforward_tensors,
    norm_tensors,
    sizes,
    table_tensors,
    window_everywhere,
    windows_by_type,
)
from gptjax.interop.huggingface.rope import rope
from gptjax.interop.huggingface.rules import (
    Rule,
    biases,
    divided_head_width,
    fixed,
    head_width,
    renamed,
    same,
    says,
    without_effect,
)
from gptjax.interop.huggingface.tensors import Constant, Tensor
from gptjax.settings import ModelSettings

_MLP, _LAYER = "layers/feedforward", "model.layers.{layer}"
_BOTH = ("gate", "up")


def _around(stack: str = "layers") -> list[Tensor]:
    """Norms and attention of the layers of a stack."""
    return [*norm_tensors(stack, PRE), *attention_tensors(stack)]


def _router(name: str) -> list[Tensor]:
    return [
        Tensor(f"{_LAYER}.{name}.gate.weight", f"{_MLP}/router"),
        Tensor(f"{_LAYER}.{name}.gate.e_score_correction_bias", f"{_MLP}/router_bias"),
    ]


def _each_expert(name: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> list[Tensor]:
    there = f"{_LAYER}.{name}.experts.{{expert}}"
    return [
        Tensor(f"{there}.{theirs}.weight", f"{_MLP}/{ours}")
        for ours, theirs in (("gate", gate), ("up", up), ("down", down))
    ]


def _all_experts() -> list[Tensor]:
    there = f"{_LAYER}.mlp.experts"
    joined = [Tensor(f"{there}.gate_up_proj", f"{_MLP}/{part}", parts=_BOTH) for part in _BOTH]
    return [*joined, Tensor(f"{there}.down_proj", f"{_MLP}/down")]


def _first_and_shared() -> list[Tensor]:
    """Layers without experts, and the expert that every token uses."""
    return [
        *_around("first_layers"),
        *feedforward_tensors("first_layers"),
        *feedforward_tensors("layers", "mlp.shared_experts", "feedforward/shared"),
    ]


def hub_tensors(model: ModelSettings) -> list[Tensor]:
    return [*table_tensors(), *_around(), *_router("mlp"), *_each_expert("mlp"), *_first_and_shared()]


def joined_tensors(model: ModelSettings) -> list[Tensor]:
    return [*table_tensors(), *_around(), *_router("mlp"), *_all_experts(), *_first_and_shared()]


def mixtral_tensors(model: ModelSettings) -> list[Tensor]:
    name = "block_sparse_moe"
    return [*table_tensors(), *_around(), *_router(name), *_each_expert(name, "w1", "w3", "w2")]


OLMOE = Family(
    "olmoe",
    "OlmoeForCausalLM",
    "olmoe",
    (
        *sizes(epsilon=1e-5),
        divided_head_width(),
        rope(),
        renamed("num_experts", "num_local_experts", "num_experts"),
        same("num_experts_per_tok", "experts_per_token", 8),
        same("norm_topk_prob", "router_normalized", False),
        fixed(qk_norm=True, qk_norm_over="projection"),
        biases(**ATTENTION_BIAS),
        says("clip_qkv", None),
    ),
    (hub_tensors, joined_tensors),
    aliases=TIED,
)
QWEN3_MOE = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    (
        *sizes(),
        same("moe_intermediate_size", "feedforward_width"),  # instead of intermediate_size, of dense layers
        head_width(),
        rope(),
        renamed("num_experts", "num_local_experts", "num_experts"),
        same("num_experts_per_tok", "experts_per_token", 8),
        same("norm_topk_prob", "router_normalized", False),
        fixed(qk_norm=True),
        biases(**ATTENTION_BIAS),
        says("decoder_sparse_step", 1),
        says("mlp_only_layers", []),
        says("use_sliding_window", False),
        without_effect("sliding_window", "max_window_layers"),
    ),
    (hub_tensors, joined_tensors),
    aliases=TIED,
)
MIXTRAL = Family(
    "mixtral",
    "MixtralForCausalLM",
    "mixtral",
    (
        *sizes(epsilon=1e-5),
        head_width(),
        rope(1e6),
        renamed("num_local_experts", "num_experts", "num_experts"),
        same("num_experts_per_tok", "experts_per_token", 2),
        fixed(router_normalized=True),
        window_everywhere(),
    ),
    (mixtral_tensors, joined_tensors),
    aliases=TIED,
)


def _dense_layers_of_glm() -> Rule:
    def read(keys: Keys) -> dict[str, Any]:
        first = keys.get("first_k_dense_replace", int, 1)
        return {"first_dense_layers": first, "first_dense_width": keys.get("intermediate_size", int) if first else 0}

    def write(model: ModelSettings) -> dict[str, Any]:
        width = model.first_dense_width or model.feedforward_width
        return {"first_k_dense_replace": model.first_dense_layers, "intermediate_size": width}

    return Rule(write, read)


GLM4_MOE = Family(
    "glm4_moe",
    "Glm4MoeForCausalLM",
    "glm4_moe",
    (
        *sizes(epsilon=1e-5),
        same("moe_intermediate_size", "feedforward_width"),
        _dense_layers_of_glm(),
        head_width(),
        rope(partial=0.5),
        renamed("n_routed_experts", "num_local_experts", "num_experts"),
        same("num_experts_per_tok", "experts_per_token", 8),
        same("n_shared_experts", "shared_experts", 1, least=0),
        same("routed_scaling_factor", "router_scale", 1.0),
        same("norm_topk_prob", "router_normalized", True),
        same("use_qk_norm", "qk_norm", False),
        fixed(router_scores="sigmoid", router_bias=True),
        biases(qkv=("attention_bias", False)),
        says("n_group", 1),
        says("topk_group", 1),
        without_effect("num_nextn_predict_layers", "num_mtp_layers"),  # whose layers are not read
    ),
    (hub_tensors, joined_tensors),
    aliases=TIED,
    further_layers=True,
)


# --- gpt-oss, whose experts have biases, which ours do not: with one expert it is a dense model -----------------------


def gpt_oss_tensors(model: ModelSettings) -> list[Tensor]:
    """Gate and up alternate along the columns."""
    there = f"{_LAYER}.mlp.experts"
    tensors = [*table_tensors(), *_around(), Tensor(f"{_LAYER}.self_attn.sinks", "layers/attention/sinks")]
    for part in _BOTH:
        biased = tuple(f"{each}_bias" for each in _BOTH)
        name = f"{there}.gate_up_proj"
        tensors.append(Tensor(name, f"{_MLP}/{part}", order="in,out", parts=_BOTH, interleaved=True, single=True))
        tensors.append(Tensor(f"{name}_bias", f"{_MLP}/{part}_bias", parts=biased, interleaved=True, single=True))
    tensors.append(Tensor(f"{there}.down_proj", f"{_MLP}/down", order="in,out", single=True))
    tensors.append(Tensor(f"{there}.down_proj_bias", f"{_MLP}/down_bias", single=True))
    return tensors


def _router_of_one(model: ModelSettings) -> list[Constant]:
    """A choice among one expert needs no weights."""
    constants = []
    for layer in range(model.num_layers):
        name = f"model.layers.{layer}.mlp.router"
        constants.append(Constant(f"{name}.weight", lambda model: np.zeros((1, model.width), np.float32)))
        constants.append(Constant(f"{name}.bias", lambda model: np.zeros(1, np.float32)))
    return constants


def _biases_of_gpt_oss() -> Rule:
    def read(keys: Keys) -> dict[str, Any]:
        everywhere = keys.get("attention_bias", bool, True)
        return {"bias": "qkv+output+feedforward" if everywhere else "feedforward"}

    return Rule(lambda model: {"attention_bias": "qkv" in model.bias or model.bias == "all"}, read)


def _alternating(keys: Keys, layers: int) -> list[str]:
    return ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)]


GPT_OSS = Family(
    "gpt_oss",
    "GptOssForCausalLM",
    "gpt_oss",
    (
        *sizes(epsilon=1e-5),
        head_width(64),
        rope(150_000.0),
        says("num_local_experts", 1, default=128),
        says("num_experts_per_tok", 1, default=4),
        fixed(feedforward="swiglu_clamped", attention_sinks=True),
        says("swiglu_alpha", 1.702),
        says("swiglu_limit", 7.0),
        _biases_of_gpt_oss(),
        windows_by_type(_alternating, 128),
        without_effect("experts_per_token", "initial_context_length"),
    ),
    (gpt_oss_tensors,),
    constants=_router_of_one,
    aliases=TIED,
)
