"""Which other programs compute an exported folder's function, and the command for each.

vLLM and mlx-lm have code of their own for most families. It leaves out some keys of config.json, and computes as if
others had one value: a window for some of the layers, a bias, a factor for attention. What such a program sees of
config.json is read here as an import reads it; only if that is the same function, the program is named.

Read in vLLM 0.33.0, commit 4ba787ec9 (vllm/model_executor/models/registry.py and the files that it names) and mlx-lm
0.32.2 (mlx_lm/models/MODEL_TYPE.py, class ModelArgs), and held against their own code by tests/parity/test_vllm.py and
test_mlx.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from gptjax.config import ConfigError
from gptjax.interop import gguf_model
from gptjax.interop.huggingface.equivalence import differences_of
from gptjax.interop.huggingface.family import Family
from gptjax.settings import ModelSettings

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Loader:
    """What a program's own code for a family takes from config.json.

    Attributes:
      keys: that it reads; (): all, because transformers reads the file for it.
      demanded: keys that must be there.
      always: key → the value that it computes with, or a function of config.json that gives it.
      only: whether it computes a config.json, for what no key says.
    """

    keys: tuple[str, ...] = ()
    demanded: tuple[str, ...] = ()
    always: Mapping[str, Any | Callable[[Content], Any]] = field(default_factory=dict)
    only: Callable[[Content], bool] = lambda content: True

    def sees(self, content: Content) -> dict[str, Any]:
        """config.json, as if it said what the program computes."""
        seen = {key: value for key, value in content.items() if not self.keys or key in self.keys}
        if self.keys and isinstance(seen.get("rope_scaling"), dict):
            seen["rope_scaling"] = {
                key: seen["rope_scaling"][key] for key in MLX_SCALING if key in seen["rope_scaling"]
            }
        return seen | {key: value(content) if callable(value) else value for key, value in self.always.items()}


def _one_window(content: Content) -> list[str]:
    """vLLM gives sliding_window to all layers of Qwen."""
    kind = "sliding_attention" if content["sliding_window"] else "full_attention"
    return [kind] * content["num_hidden_layers"]


def _root_is_bfloat16(content: Content) -> bool:
    """mlx-lm multiplies Gemma 3's embeddings by the square root of the width, rounded to bfloat16."""
    root = np.float32(content["hidden_size"] ** 0.5)
    return bool(root == root.astype(ml_dtypes.bfloat16))


_SILU: dict[str, Any] = {"hidden_act": "silu"}
_GELU: dict[str, Any] = {"hidden_activation": "gelu_pytorch_tanh"}
_NO_BIAS: dict[str, Any] = {"attention_bias": False, "mlp_bias": False}
_QWEN = Loader(always=_SILU | {"layer_types": _one_window, "attention_bias": False})
_BY_TRANSFORMERS = Loader()  # vLLM runs the code of transformers
VLLM: dict[str, Loader] = {  # by family; vLLM's code for glm4_moe and gpt_oss has not been compared
    "llama": Loader(always=_SILU),
    "mistral": Loader(always=_SILU),
    "mixtral": Loader(always=_SILU),
    "qwen2": _QWEN,
    "qwen3": _QWEN,
    "qwen3_moe": Loader(always=_SILU | {"attention_bias": False}),
    "olmo2": _BY_TRANSFORMERS,
    "olmoe": Loader(
        always=_SILU
        | {"attention_bias": False, "rms_norm_eps": 1e-5, "norm_topk_prob": False, "tie_word_embeddings": False}
    ),
    "smollm3": _BY_TRANSFORMERS,
    "granite": Loader(always=_SILU),
    "phi3": Loader(always=_SILU),
    "gemma2": Loader(always=_GELU | {"tie_word_embeddings": True}),
    "gemma3": Loader(always=_GELU | {"attn_logit_softcapping": None}),
    "gpt2": Loader(),
    "gpt_neox": _BY_TRANSFORMERS,
}

MLX_SCALING = (
    *("type", "rope_type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    *("beta_fast", "beta_slow"),
)
_SIZES = (
    *("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    *("vocab_size", "rms_norm_eps", "max_position_embeddings", "rope_theta", "tie_word_embeddings"),
)


def _mlx(*keys: str, demanded: tuple[str, ...] = (), **always: Any) -> Loader:
    return Loader((*_SIZES, *keys), (*_SIZES, *demanded), _SILU | always)


_LIKE_LLAMA = ("head_dim", "rope_scaling", "attention_bias", "mlp_bias")
_EXPERTS = ("num_experts", "num_experts_per_tok", "norm_topk_prob")
_SCALES = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
MLX: dict[str, Loader] = {  # by family
    "llama": _mlx(*_LIKE_LLAMA),
    "mistral": _mlx(*_LIKE_LLAMA, sliding_window=None),
    "mixtral": _mlx("num_local_experts", "num_experts_per_tok", head_dim=None, sliding_window=None),
    "qwen2": _mlx("rope_scaling", use_sliding_window=False),
    "qwen3": _mlx("head_dim", "rope_scaling", demanded=("head_dim",), use_sliding_window=False),
    "qwen3_moe": _mlx(
        *(*_EXPERTS, "head_dim", "moe_intermediate_size", "decoder_sparse_step", "mlp_only_layers"),
        demanded=(*_EXPERTS, "head_dim", "moe_intermediate_size", "decoder_sparse_step", "mlp_only_layers"),
    ),
    "olmo2": _mlx(*_LIKE_LLAMA),
    "olmoe": _mlx(*_LIKE_LLAMA, *_EXPERTS, demanded=_EXPERTS),
    "smollm3": _mlx(*_LIKE_LLAMA, "no_rope_layers", "no_rope_layer_interval", use_sliding_window=False),
    "granite": _mlx(
        *(*_SCALES, "rope_scaling", "attention_bias", "mlp_bias"), demanded=(*_SCALES, "attention_bias", "mlp_bias")
    ),
    "phi3": _mlx("partial_rotary_factor", sliding_window=None),
    "gemma3": Loader(
        (
            *(*_SIZES, "head_dim", "query_pre_attn_scalar", "rope_scaling", "rope_local_base_freq", "sliding_window"),
            "sliding_window_pattern",
        ),
        ("sliding_window_pattern",),
        _GELU | _NO_BIAS,
        _root_is_bfloat16,
    ),
}


def computes(loader: Loader | None, family: Family, model: ModelSettings) -> bool:
    """Whether a program computes the function of an export. loader: of the family; None: the program has none."""
    if loader is None:
        return False
    content = family.write(model)
    if any(content.get(key) is None for key in loader.demanded) or not loader.only(content):
        return False
    try:
        seen, _ = family.read(loader.sees(content))
    except ConfigError:
        return False
    return not differences_of(model, seen)


def loading(family: Family, model: ModelSettings, folder: str) -> list[str]:
    """How to load the folder: a line for each program that computes the same function."""
    auto = "AutoModelForCausalLM" if model.family == "decoder" else "AutoModelForSeq2SeqLM"
    lines = [f"transformers: {auto}.from_pretrained({folder!r}), AutoTokenizer.from_pretrained({folder!r})"]
    if computes(VLLM.get(family.name), family, model):
        lines.append(f"vLLM: vllm serve {folder}")
    if computes(MLX.get(family.name), family, model):
        lines.append(f"MLX: mlx_lm.generate --model {folder} --prompt Once")
    if _fits_gguf(family, model):
        lines.append("llama.cpp, Ollama: export again with --format=gguf")
    return lines


def _fits_gguf(family: Family, model: ModelSettings) -> bool:
    try:
        gguf_model.check_model(family.write(model))
    except ConfigError:
        return False
    return True
