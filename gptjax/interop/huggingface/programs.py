"""Which other programs load an exported folder, by what their loaders read, and the command for each.

vLLM has its own code for the architectures in vllm/model_executor/models/registry.py, and mlx-lm for those whose
mlx_lm/models/MODEL_TYPE.py exists. Both multiply gates by SiLU in models like Llama, whatever config.json says, and
mlx-lm knows neither windows nor biases in some of them: a program that would compute another function is not named.
"""

from __future__ import annotations

from gptjax.config import ConfigError
from gptjax.interop import gguf
from gptjax.interop.huggingface.equivalence import whole_pattern
from gptjax.interop.huggingface.family import Family
from gptjax.settings import ModelSettings

VLLM = {
    *("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Olmo2ForCausalLM"),
    *("GraniteForCausalLM", "Phi3ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GPT2LMHeadModel"),
    *("GPTNeoXForCausalLM", "MptForCausalLM", "OlmoeForCausalLM", "Qwen3MoeForCausalLM", "MixtralForCausalLM"),
    *("Glm4MoeForCausalLM", "GptOssForCausalLM"),
}
MLX = {"llama", "smollm3", "qwen2", "qwen3"}
# Keys without a default in mlx-lm's ModelArgs (mlx_lm/models/llama.py, qwen2.py, qwen3.py, smollm3.py).
MLX_KEYS = {
    *("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "rms_norm_eps"),
    *("vocab_size", "num_key_value_heads", "max_position_embeddings", "rope_theta", "tie_word_embeddings"),
}
# Families whose activation vLLM reads from config.json, or which have another one.
OTHER_ACTIVATIONS = {"gpt2", "gpt_neox", "mpt", "gemma2", "gemma3", "gpt_oss"}


def loading(family: Family, model: ModelSettings, folder: str) -> list[str]:
    """How to load the folder: a line for each program that computes the same function."""
    auto = "AutoModelForCausalLM" if model.family == "decoder" else "AutoModelForSeq2SeqLM"
    lines = [f"transformers: {auto}.from_pretrained({folder!r}), AutoTokenizer.from_pretrained({folder!r})"]
    if family.architecture in VLLM and (model.feedforward == "swiglu" or family.name in OTHER_ACTIVATIONS):
        lines.append(f"vLLM: vllm serve {folder}")
    if family.name in MLX and model.feedforward == "swiglu" and _is_plain(family, model):
        lines.append(f"MLX: mlx_lm.generate --model {folder} --prompt Once")
    if _fits_gguf(family, model):
        lines.append("llama.cpp, Ollama: export again with --format=gguf")
    return lines


def _is_plain(family: Family, model: ModelSettings) -> bool:
    """Without windows, with a scaling of positions that mlx-lm computes in the same way, and with no biases but those
    that every model of the family has."""
    usual = "qkv" if family.name == "qwen2" else "none"
    scaled_alike = model.rope_scaling in ("none", "linear", "llama3")
    return "S" not in whole_pattern(model) and scaled_alike and model.bias == usual


def _fits_gguf(family: Family, model: ModelSettings) -> bool:
    try:
        gguf.check_model(family.write(model))
    except ConfigError:
        return False
    return True
