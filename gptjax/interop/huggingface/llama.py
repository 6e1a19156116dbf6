"""Llama and the families whose blocks are like its: Mistral, Qwen2.5, Qwen3, SmolLM3, OLMo 2, Granite, Phi-3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gptjax.interop.huggingface.equivalence import shortest_pattern, whole_pattern
from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.keys import Keys
from gptjax.interop.huggingface.rope import rope
from gptjax.interop.huggingface.rules import (
    GATED,
    Rule,
    biases,
    choice,
    divided_head_width,
    fixed,
    head_width,
    kv_heads,
    same,
    says,
    scaled,
    without_effect,
)
from gptjax.interop.huggingface.tensors import Tensor
from gptjax.settings import ModelSettings

PRE = {"attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"}
SANDWICH = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_post_norm": "post_feedforward_layernorm",
}
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
TIED = {"lm_head.weight": "model.embed_tokens.weight"}


# --- tensors ----------------------------------------------------------------------------------------------------------


def table_tensors(minus: float = 0.0) -> list[Tensor]:
    """Embedding, last norm and head."""
    return [
        Tensor("model.embed_tokens.weight", "embedding"),
        Tensor("model.norm.weight", "final_norm/scale", minus=minus),
        Tensor("lm_head.weight", "head"),
    ]


def attention_tensors(
    stack: str, inside: str = "attention", there: str = "self_attn", minus: float = 0.0
) -> list[Tensor]:
    """Projections, their biases, and the norms of queries and keys in the layers of a stack of ours."""
    name, path = f"model.layers.{{layer}}.{there}", f"{stack}/{inside}"
    tensors = []
    for ours, theirs in PROJECTIONS.items():
        tensors.append(Tensor(f"{name}.{theirs}.weight", f"{path}/{ours}"))
        tensors.append(Tensor(f"{name}.{theirs}.bias", f"{path}/{ours}_bias"))
    for ours in ("query", "key"):
        tensors.append(Tensor(f"{name}.{ours[0]}_norm.weight", f"{path}/{ours}_norm/scale", minus=minus))
    return tensors


def norm_tensors(stack: str, norms: Mapping[str, str], minus: float = 0.0) -> list[Tensor]:
    return [
        Tensor(f"model.layers.{{layer}}.{theirs}.weight", f"{stack}/{ours}/scale", minus=minus)
        for ours, theirs in norms.items()
    ]


def feedforward_tensors(stack: str, there: str = "mlp", inside: str = "feedforward") -> list[Tensor]:
    name, path = f"model.layers.{{layer}}.{there}", f"{stack}/{inside}"
    parts = [(part, end) for part in ("gate", "up", "down") for end in ("", "_bias")]
    return [Tensor(f"{name}.{part}_proj.{'bias' if end else 'weight'}", f"{path}/{part}{end}") for part, end in parts]


def llama_tensors(model: ModelSettings, norms: Mapping[str, str] = PRE, minus: float = 0.0) -> list[Tensor]:
    return [
        *table_tensors(minus),
        *norm_tensors("layers", norms, minus),
        *attention_tensors("layers", minus=minus),
        *feedforward_tensors("layers"),
    ]


def olmo2_tensors(model: ModelSettings) -> list[Tensor]:
    return llama_tensors(model, SANDWICH)


def phi3_tensors(model: ModelSettings) -> list[Tensor]:
    """Query, key and value are one matrix, and gate and up another."""
    kept = [tensor for tensor in llama_tensors(model) if tensor.path.split("/")[-1] not in ("query", "key", "value")]
    kept = [tensor for tensor in kept if tensor.path.split("/")[-1] not in ("gate", "up")]
    name, three, two = "model.layers.{layer}", ("query", "key", "value"), ("gate", "up")
    qkv = [Tensor(f"{name}.self_attn.qkv_proj.weight", f"layers/attention/{part}", parts=three) for part in three]
    both = [Tensor(f"{name}.mlp.gate_up_proj.weight", f"layers/feedforward/{part}", parts=two) for part in two]
    return [*kept, *qkv, *both]


# --- config.json ------------------------------------------------------------------------------------------------------


def sizes(epsilon: float = 1e-6, tied: bool = False, activation: str = "hidden_act") -> tuple[Rule, ...]:
    """What all families like Llama say in the same way.

    epsilon, tied: what transformers takes where the key is missing. activation: its key.
    """
    return (
        same("vocab_size", "vocab_size"),
        same("hidden_size", "width"),
        same("num_hidden_layers", "num_layers"),
        same("num_attention_heads", "num_heads"),
        kv_heads(),
        same("intermediate_size", "feedforward_width"),
        same("max_position_embeddings", "max_positions"),
        same("rms_norm_eps", "norm_epsilon", epsilon),
        same("tie_word_embeddings", "tied_embeddings", tied),
        choice(activation, GATED, "feedforward", "silu" if activation == "hidden_act" else "gelu_pytorch_tanh"),
    )


ATTENTION_BIAS = {"qkv": ("attention_bias", False), "output": ("attention_bias", False)}
LAYER_TYPES = {"S": "sliding_attention", "L": "full_attention", "N": "full_attention"}


def window_everywhere(default: int = 0) -> Rule:
    """sliding_window of every layer. default: what transformers takes where the key is missing."""

    def read(keys: Keys) -> dict[str, Any]:
        absent = 0 if "sliding_window" in keys.content else default  # null: no window
        window = keys.get("sliding_window", int, absent)
        return {"window": window, "window_pattern": "S" if window else "L"}

    def write(model: ModelSettings) -> dict[str, Any]:
        every = set(whole_pattern(model)) == {"S"}
        return {"sliding_window": model.window if every else None}

    return Rule(write, read)


def types_of_layers(keys: Keys, num_layers: int, default: list[str]) -> list[str]:
    """layer_types, or what transformers derives without the key."""
    types = keys.get("layer_types", list, default)
    if len(types) != num_layers or not set(map(str, types)) <= set(LAYER_TYPES.values()):
        raise keys.error(
            "layer_types", types, f"a list of {num_layers} of {', '.join(sorted(set(LAYER_TYPES.values())))}"
        )
    return types


def windows_by_type(default: Callable[[Keys, int], list[str]], window: int) -> Rule:
    """Gemma's and gpt-oss's way: sliding_window and layer_types.

    Args:
      default: (keys, number of layers) → layer_types where they are missing.
      window: sliding_window where it is missing.
    """

    def read(keys: Keys) -> dict[str, Any]:
        layers, width = keys.get("num_hidden_layers", int), keys.get("sliding_window", int, window)
        types = types_of_layers(keys, layers, default(keys, layers))
        marks = "".join("S" if each == "sliding_attention" else "L" for each in types)
        return {"window": width if "S" in marks else 0, "window_pattern": shortest_pattern(marks)}

    def write(model: ModelSettings) -> dict[str, Any]:
        return {
            "sliding_window": model.window or model.max_positions,  # it must be there, even if no layer has one
            "layer_types": [LAYER_TYPES[mark] for mark in whole_pattern(model)],
        }

    return Rule(write, read)


def every_nth_full(every: int) -> Callable[[Keys, int], list[str]]:
    """layer_types whose every n-th layer sees the full context; older files give n as sliding_window_pattern."""

    def types(keys: Keys, layers: int) -> list[str]:
        written = keys.get("_sliding_window_pattern", int, every)
        n = keys.get("sliding_window_pattern", int, written)
        if n < 1:
            raise keys.error("sliding_window_pattern", n, "at least 1")
        return ["full_attention" if (layer + 1) % n == 0 else "sliding_attention" for layer in range(layers)]

    return types


def period_of(types: list[str]) -> int | None:
    """n, where every n-th layer sees the full context and the others have windows; None: they have another order."""
    period = types.index("full_attention") + 1 if "full_attention" in types else 0
    fits = period and types == [
        "sliding_attention" if (i + 1) % period else "full_attention" for i in range(len(types))
    ]
    return period if fits else None


def optional_windows() -> Rule:
    """Qwen's and SmolLM3's way: use_sliding_window, sliding_window, and max_window_layers or layer_types."""

    def read(keys: Keys) -> dict[str, Any]:
        layers = keys.get("num_hidden_layers", int)
        used, given = keys.get("use_sliding_window", bool, False), keys.get("sliding_window", int, 4096)
        window = given if used else 0
        first = keys.get("max_window_layers", int, 28)
        default = ["sliding_attention" if window and layer >= first else "full_attention" for layer in range(layers)]
        types = types_of_layers(keys, layers, default)
        marks = "".join("S" if window and each == "sliding_attention" else "L" for each in types)
        return {"window": window if "S" in marks else 0, "window_pattern": shortest_pattern(marks)}

    def write(model: ModelSettings) -> dict[str, Any]:
        marks = whole_pattern(model)
        return {
            "use_sliding_window": "S" in marks,
            "sliding_window": model.window if "S" in marks else None,
            # vLLM refuses windows in some of the layers by this number, and gives them to all if it has no effect.
            "max_window_layers": marks.index("S") if "S" in marks else model.num_layers,
            "layer_types": [LAYER_TYPES[mark] for mark in marks],
        }

    return Rule(write, read)


def layers_without_rope() -> Rule:
    """SmolLM3's no_rope_layers, where 1 marks a layer that is rotated, or an interval."""

    def read(keys: Keys) -> dict[str, Any]:
        layers, windows = keys.get("num_hidden_layers", int), optional_windows().read(keys)
        interval = keys.get("no_rope_layer_interval", int, 4)
        default = [int(bool((layer + 1) % max(interval, 1))) for layer in range(layers)]
        rotated = keys.get("no_rope_layers", list, default)
        if len(rotated) != layers or any(each not in (0, 1) for each in rotated):
            raise keys.error("no_rope_layers", rotated, f"a list of {layers} numbers that are 0 or 1")
        if windows["window"] and not all(rotated):
            raise keys.error("use_sliding_window", True, "false where layers have no rotary positions")
        marks = "".join("L" if each else "N" for each in rotated)
        return windows if windows["window"] else {"window": 0, "window_pattern": shortest_pattern(marks)}

    def write(model: ModelSettings) -> dict[str, Any]:
        rotated = [int(mark != "N") for mark in whole_pattern(model)]
        return optional_windows().write(model) | {"no_rope_layers": rotated, "no_rope_layer_interval": 4}

    return Rule(write, read)


LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    "llama",
    (
        *sizes(),
        head_width(),
        rope(),
        biases(**ATTENTION_BIAS, feedforward=("mlp_bias", False)),
        says("rope_interleaved", False),
        without_effect("is_llama_config"),
    ),
    (llama_tensors,),
    aliases=TIED,
)
MISTRAL = Family(
    "mistral",
    "MistralForCausalLM",
    "mistral",
    (*sizes(), head_width(), rope(), window_everywhere(4096)),
    (llama_tensors,),
    aliases=TIED,
)
QWEN2 = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    "qwen2",
    (*sizes(), divided_head_width(), rope(), fixed(bias="qkv"), optional_windows()),
    (llama_tensors,),
    aliases=TIED,
)
QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    "qwen3",
    (*sizes(), head_width(128), rope(), fixed(qk_norm=True), biases(**ATTENTION_BIAS), optional_windows()),
    (llama_tensors,),
    aliases=TIED,
)
SMOLLM3 = Family(
    "smollm3",
    "SmolLM3ForCausalLM",
    "smollm3",
    (
        *sizes(tied=True),
        divided_head_width(),
        rope(2_000_000.0),
        biases(**ATTENTION_BIAS, feedforward=("mlp_bias", False)),
        layers_without_rope(),
    ),
    (llama_tensors,),
    aliases=TIED,
)
OLMO2 = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    "olmo2",
    (
        *sizes(epsilon=1e-5),
        divided_head_width(),
        rope(),
        fixed(norm_placement="post", qk_norm=True, qk_norm_over="projection"),
        biases(**ATTENTION_BIAS),
    ),
    (olmo2_tensors,),
    aliases=TIED,
)
GRANITE = Family(
    "granite",
    "GraniteForCausalLM",
    "granite",
    (
        *sizes(),
        divided_head_width(),
        rope(),
        biases(**ATTENTION_BIAS, feedforward=("mlp_bias", False)),
        same("embedding_multiplier", "embedding_multiplier", 1.0),
        same("residual_multiplier", "residual_multiplier", 1.0),
        scaled("logits_scaling", "logit_multiplier", lambda ours: 1 / ours, lambda theirs: 1 / theirs, 1.0),
        Rule(
            lambda model: {"attention_multiplier": model.attention_scale or model.head_width**-0.5},
            lambda keys: {"attention_scale": keys.get("attention_multiplier", float, 1.0)},
        ),
    ),
    (llama_tensors,),
    aliases=TIED,
)
PHI3 = Family(
    "phi3",
    "Phi3ForCausalLM",
    "phi3",
    (
        *sizes(epsilon=1e-5),
        divided_head_width(),
        rope(partial=1.0, scalings=()),
        window_everywhere(),
        says("attention_bias", False),
        without_effect("original_max_position_embeddings"),  # of longrope
    ),
    (phi3_tensors,),
    aliases=TIED,
)
