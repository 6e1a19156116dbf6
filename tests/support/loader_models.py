"""Models that mlx-lm or vLLM load, or compute in another way: (family, settings, MLX's answer, vLLM's)."""

from huggingface_models import GEMMA, GROUPED

YARN = dict(rope_scaling="yarn", rope_factor=4.0, rope_original_positions=12)
QWEN3 = GROUPED | dict(qk_norm=True)
MOE = QWEN3 | dict(num_experts=3, router_normalized=True)
OLMO2 = GROUPED | dict(norm_placement="post", qk_norm=True, qk_norm_over="projection")
OLMOE = GROUPED | dict(qk_norm=True, qk_norm_over="projection", num_experts=3, tied_embeddings=False)
GEMMA3 = GEMMA | dict(width=64, embedding_multiplier=8.0, qk_norm=True)
WINDOWS = dict(window=8, window_pattern="SL", rope_local_theta=100.0)
ALL_BIASES = dict(bias="qkv+output+feedforward")

CASES = {
    "llama": ("llama", GROUPED | dict(head_width=12), True, True),
    "llama3": (
        "llama",
        GROUPED | dict(rope_scaling="llama3", rope_factor=8.0, rope_original_positions=16, rope_theta=5e5),
        *(True, True),
    ),
    "llama linear": ("llama", GROUPED | dict(rope_scaling="linear", rope_factor=4.0), True, True),
    "llama yarn": ("llama", GROUPED | YARN, True, True),
    "llama attention_factor": ("llama", GROUPED | YARN | dict(rope_attention_factor=1.4), False, True),
    "llama untied with biases": ("llama", GROUPED | ALL_BIASES | dict(tied_embeddings=False), True, True),
    "mistral": ("mistral", GROUPED, True, True),
    "mistral with windows": ("mistral", GROUPED | dict(window=8, window_pattern="S"), False, True),
    "mixtral": ("mixtral", GROUPED | dict(num_experts=3, router_normalized=True), True, True),
    "qwen2": ("qwen2", GROUPED | dict(bias="qkv"), True, True),
    "qwen2 with windows": ("qwen2", GROUPED | dict(bias="qkv", window=8, window_pattern="S"), False, True),
    "qwen2 with some windows": ("qwen2", GROUPED | dict(bias="qkv", window=8, window_pattern="LS"), False, False),
    "qwen3": ("qwen3", QWEN3 | dict(head_width=12, tied_embeddings=False), True, True),
    "qwen3 with biases": ("qwen3", QWEN3 | dict(bias="qkv+output"), False, False),
    "qwen3_moe": ("qwen3_moe", MOE, True, True),
    "qwen3_moe yarn": ("qwen3_moe", MOE | YARN, False, True),
    "qwen3_moe not normalized": ("qwen3_moe", MOE | dict(router_normalized=False, head_width=12), True, True),
    "olmo2": ("olmo2", OLMO2, True, True),
    "olmoe": ("olmoe", OLMOE, True, True),
    "olmoe normalized": ("olmoe", OLMOE | dict(router_normalized=True), True, False),
    "olmoe with another epsilon": ("olmoe", OLMOE | dict(norm_epsilon=1e-3), True, False),
    "olmoe tied": ("olmoe", OLMOE | dict(tied_embeddings=True), True, False),
    "smollm3": ("smollm3", GROUPED | dict(window_pattern="LN"), True, True),
    "granite": (
        "granite",
        GROUPED | dict(embedding_multiplier=12.0, logit_multiplier=1 / 49, attention_scale=0.07),
        *(True, True),
    ),
    "phi3": ("phi3", GROUPED | dict(rope_fraction=0.5), True, True),
    "gemma3": ("gemma3", GEMMA3 | WINDOWS | dict(rope_scaling="linear", rope_factor=4.0), True, True),
    "gemma3 without windows": ("gemma3", GEMMA3 | dict(attention_scale=0.1), True, True),
    "gemma3 with another order": ("gemma3", GEMMA3 | WINDOWS | dict(num_layers=3, window_pattern="SLL"), False, True),
    "gemma3 with limited logits": ("gemma3", GEMMA3 | dict(logit_softcap=30.0), False, True),
    "gemma3 with limited attention": ("gemma3", GEMMA3 | dict(attention_softcap=5.0), False, False),
    # the root of 128 is rounded
    "gemma3 of another width": (
        "gemma3",
        GEMMA3 | WINDOWS | dict(width=128, embedding_multiplier=128**0.5),
        *(False, True),
    ),
    "gpt2": (
        "gpt2",
        dict(norm="layernorm", bias="all", feedforward="gelu", position="learned"),
        *(False, True),
    ),
}
