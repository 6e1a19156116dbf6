"""Small configs of transformers' families, with the settings of ours that compute the same function."""

import numpy as np
import pytest

from gptjax.interop.huggingface.families import FAMILIES as OURS
from gptjax.interop.huggingface.families import family_of_config
from gptjax.interop.huggingface.tensors import places_of, written_tensors
from gptjax.model.families import family_of

torch = pytest.importorskip("torch", reason="needs pip install 'gptjax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gptjax[parity]'")

V, D, L, T = 61, 32, 3, 40
SIZES = dict(hidden_size=D, num_hidden_layers=L, vocab_size=V, intermediate_size=48, max_position_embeddings=64)
HEADS = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6, attention_bias=False)
LLAMA = dict(num_kv_heads=2, feedforward_width=48, tied_embeddings=False, norm_epsilon=1e-6)
LLAMA3 = dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
GPT2 = dict(norm="layernorm", bias="all", feedforward="gelu", position="learned")


def gpt2():
    config = transformers.GPT2Config(n_embd=D, n_layer=L, n_head=4, vocab_size=V, n_positions=64)
    return transformers.GPT2LMHeadModel, config, GPT2


def llama():
    rope = LLAMA3 | {"original_max_position_embeddings": 16}
    config = transformers.LlamaConfig(**SIZES, **HEADS, rope_parameters=rope)
    scaling = dict(rope_scaling="llama3", rope_factor=8.0, rope_original_positions=16)
    return transformers.LlamaForCausalLM, config, LLAMA | scaling


def qwen3():
    rope = dict(rope_type="default", rope_theta=1e6)
    config = transformers.Qwen3Config(
        **SIZES, **HEADS | {"head_dim": 12}, rope_parameters=rope, tie_word_embeddings=True
    )
    ours = LLAMA | dict(head_width=12, qk_norm=True, rope_theta=1e6, tied_embeddings=True)
    return transformers.Qwen3ForCausalLM, config, ours


def mistral():
    heads = {name: value for name, value in HEADS.items() if name != "attention_bias"}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.MistralConfig(**SIZES, **heads, sliding_window=7, rope_parameters=rope)
    return transformers.MistralForCausalLM, config, LLAMA | dict(window=7, window_pattern="S")


def qwen2():
    heads = {name: value for name, value in HEADS.items() if name not in ("attention_bias", "head_dim")}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.Qwen2Config(**SIZES, **heads, rope_parameters=rope)
    return transformers.Qwen2ForCausalLM, config, LLAMA | dict(bias="qkv")


def phi3():
    heads = {name: value for name, value in HEADS.items() if name not in ("attention_bias", "head_dim")}
    rope = dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=1.0)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = transformers.Phi3Config(**SIZES, **heads, **ids, rope_parameters=rope, sliding_window=9)
    return transformers.Phi3ForCausalLM, config, LLAMA | dict(window=9, window_pattern="S")


GEMMA = LLAMA | dict(
    norm_placement="sandwich",
    embedding_multiplier=D**0.5,
    feedforward="geglu",
    attention_scale=24**-0.5,
    tied_embeddings=True,
    window=7,
)
LAYERS = dict(S="sliding_attention", L="full_attention", N="full_attention")


def gemma2():
    config = transformers.Gemma2Config(
        **SIZES,
        **HEADS,
        rope_parameters=dict(rope_type="default", rope_theta=1e4),
        query_pre_attn_scalar=24,
        sliding_window=7,
        layer_types=[LAYERS[mark] for mark in "SLS"],
        attn_logit_softcapping=0.5,
        final_logit_softcapping=2.0,
    )
    ours = GEMMA | dict(window_pattern="SL", attention_softcap=0.5, logit_softcap=2.0)
    return transformers.Gemma2ForCausalLM, config, ours


def gemma3():
    rope = dict(
        sliding_attention=dict(rope_type="default", rope_theta=100.0),
        full_attention=dict(rope_type="linear", rope_theta=1e4, factor=8.0),
    )
    config = transformers.Gemma3TextConfig(
        **SIZES,
        **HEADS,
        rope_parameters=rope,
        query_pre_attn_scalar=24,
        sliding_window=7,
        layer_types=[LAYERS[mark] for mark in "SSL"],
    )
    ours = GEMMA | dict(window_pattern="SSL", qk_norm=True, rope_local_theta=100.0)
    return transformers.Gemma3ForCausalLM, config, ours | dict(rope_scaling="linear", rope_factor=8.0)


def olmo2():
    heads = {name: value for name, value in HEADS.items() if name != "head_dim"}
    rope = dict(rope_type="default", rope_theta=5e5)
    config = transformers.Olmo2Config(**SIZES, **heads, rope_parameters=rope)
    ours = LLAMA | dict(norm_placement="post", qk_norm=True, qk_norm_over="projection", rope_theta=5e5)
    return transformers.Olmo2ForCausalLM, config, ours


def smollm3():
    heads = {name: value for name, value in HEADS.items() if name != "head_dim"}
    rope = dict(rope_type="default", rope_theta=5e6)
    config = transformers.SmolLM3Config(
        **SIZES, **heads, rope_parameters=rope, no_rope_layers=[1, 0, 1], pad_token_id=0, tie_word_embeddings=True
    )
    ours = LLAMA | dict(window_pattern="LN", rope_theta=5e6, tied_embeddings=True)
    return transformers.SmolLM3ForCausalLM, config, ours


def pythia():
    rope = dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.25)
    config = transformers.GPTNeoXConfig(**SIZES, num_attention_heads=4, rope_parameters=rope)
    ours = dict(norm="layernorm", bias="all", feedforward="gelu_exact", feedforward_width=48, parallel_residual=True)
    return transformers.GPTNeoXForCausalLM, config, ours | dict(rope_fraction=0.25, tied_embeddings=False)


def granite():
    heads = {name: value for name, value in HEADS.items() if name not in ("head_dim", "attention_bias")}
    rope = dict(rope_type="default", rope_theta=1e4)
    multipliers = dict(embedding_multiplier=12.0, residual_multiplier=0.22)
    config = transformers.GraniteConfig(
        **SIZES,
        **heads,
        **multipliers,
        rope_parameters=rope,
        attention_multiplier=0.07,
        logits_scaling=8.0,
        attention_bias=True,
        tie_word_embeddings=True,
    )
    ours = LLAMA | multipliers | dict(attention_scale=0.07, logit_multiplier=1 / 8, tied_embeddings=True)
    return transformers.GraniteForCausalLM, config, ours | dict(bias="qkv+output")


def gpt_oss():
    """gpt-oss with one expert, which is a dense model."""
    yarn = dict(rope_type="yarn", rope_theta=50.0, factor=8.0, beta_fast=4.0, beta_slow=1.0, truncate=False)
    config = transformers.GptOssConfig(
        **SIZES,
        **HEADS | {"attention_bias": True},
        rope_parameters=yarn | {"original_max_position_embeddings": 64},
        sliding_window=7,
        layer_types=[LAYERS[mark] for mark in "SLS"],
        num_local_experts=1,
        num_experts_per_tok=1,
    )
    ours = LLAMA | dict(window=7, window_pattern="SL", attention_sinks=True, bias="qkv+output+feedforward")
    ours |= dict(feedforward="swiglu_clamped", rope_scaling="yarn", rope_theta=50.0, rope_factor=8.0)
    return (
        transformers.GptOssForCausalLM,
        config,
        ours | dict(rope_original_positions=64, rope_truncate=False),
    )


def olmoe():
    heads = {name: value for name, value in HEADS.items() if name != "head_dim"}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.OlmoeConfig(**SIZES, **heads, rope_parameters=rope, num_experts=8, num_experts_per_tok=3)
    ours = LLAMA | dict(qk_norm=True, qk_norm_over="projection", num_experts=8, experts_per_token=3)
    return transformers.OlmoeForCausalLM, config, ours


def qwen3_moe():
    rope = dict(rope_type="default", rope_theta=1e6)
    experts = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=20, norm_topk_prob=True)
    config = transformers.Qwen3MoeConfig(**SIZES, **HEADS, **experts, rope_parameters=rope)
    ours = LLAMA | dict(qk_norm=True, rope_theta=1e6, num_experts=6, router_normalized=True, feedforward_width=20)
    return transformers.Qwen3MoeForCausalLM, config, ours


def mixtral():
    heads = {name: value for name, value in HEADS.items() if name != "attention_bias"}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.MixtralConfig(**SIZES, **heads, rope_parameters=rope, num_local_experts=4)
    ours = LLAMA | dict(num_experts=4, router_normalized=True)
    return transformers.MixtralForCausalLM, config, ours


def glm4_moe():
    """A router like DeepSeek-V3's: sigmoid, bias, scale and a shared expert, after a dense layer."""
    rope = dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)
    experts = dict(n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=20)
    experts |= dict(routed_scaling_factor=2.5, norm_topk_prob=True, n_group=1, topk_group=1, first_k_dense_replace=1)
    config = transformers.Glm4MoeConfig(**SIZES, **HEADS, **experts, rope_parameters=rope, use_qk_norm=True)
    ours = LLAMA | dict(qk_norm=True, num_experts=6, feedforward_width=20, shared_experts=1, router_scores="sigmoid")
    ours |= dict(router_bias=True, router_scale=2.5, router_normalized=True, rope_fraction=0.5)
    ours |= dict(first_dense_layers=1, first_dense_width=48)
    return transformers.Glm4MoeForCausalLM, config, ours


def phi3_128k():
    """Phi-3 beyond its original context, where transformers uses the long factors."""
    heads = {name: value for name, value in HEADS.items() if name not in ("attention_bias", "head_dim")}
    factors = (1.0, 1.5, 2.5, 4.0)
    rope = dict(rope_type="longrope", rope_theta=1e4, long_factor=list(factors), short_factor=[1.0] * 4)
    config = transformers.Phi3Config(
        **SIZES,
        **heads,
        **dict(pad_token_id=0, bos_token_id=1, eos_token_id=2),
        original_max_position_embeddings=16,
        rope_parameters=rope | dict(original_max_position_embeddings=16, partial_rotary_factor=1.0),
    )
    ours = dict(rope_scaling="longrope", rope_feature_factors=factors, rope_factor=4.0, rope_original_positions=16)
    return transformers.Phi3ForCausalLM, config, LLAMA | ours


def mpt():
    config = transformers.MptConfig(d_model=D, n_heads=4, n_layers=L, vocab_size=V, max_seq_len=64)
    ours = dict(norm="layernorm", position="alibi", feedforward="gelu_exact")
    return transformers.MptForCausalLM, config, ours


def t5gemma():
    """With Gemma 2's soft caps, and without windows, since an encoder's reach one token further on each side in
    transformers.
    """
    stack = dict(
        **SIZES,
        **HEADS,
        rope_parameters=dict(rope_type="default", rope_theta=1e4),
        query_pre_attn_scalar=24,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=2.0,
        layer_types=["full_attention"] * L,
    )
    stacks = {name: transformers.T5GemmaModuleConfig(**stack) for name in ("encoder", "decoder")}
    config = transformers.T5GemmaConfig(**stacks, vocab_size=V)
    ours = {name: value for name, value in GEMMA.items() if name != "window"}
    ours |= dict(attention_softcap=0.5, logit_softcap=2.0)
    return (
        transformers.T5GemmaForConditionalGeneration,
        config,
        ours | dict(family="encoder_decoder", shared_embeddings=False),
    )


def marian():
    """The original Transformer: norms after the sum, sinusoidal positions, one table."""
    config = transformers.MarianConfig(
        vocab_size=V,
        d_model=D,
        encoder_layers=2,
        decoder_layers=L,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=64,
        **dict(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0),
    )
    ours = dict(norm="layernorm", norm_placement="post_residual", bias="all", position="sinusoidal", feedforward="relu")
    ours |= dict(family="encoder_decoder", num_encoder_layers=2, feedforward_width=48)
    return transformers.MarianMTModel, config, ours


FAMILIES = [gpt2, llama, qwen2, qwen3, mistral, phi3, gemma2, gemma3, olmo2, smollm3, pythia, granite]
FAMILIES += [gpt_oss, phi3_128k, mpt, t5gemma, marian]
FAMILIES += [olmoe, qwen3_moe, mixtral, glm4_moe]


IN_MEMORY = {"embed_out.weight": "lm_head.weight"}  # names that transformers changes when it reads a file


def state_of(name, model, params):
    """Our parameters as the state of a module of transformers, which has all experts in one tensor."""
    family = OURS[name]
    places = places_of(family.layouts[-1](model), family_of(model).declarations)
    tensors = written_tensors(places, family.constants(model), model, params)
    return {IN_MEMORY.get(each.name, each.name): np.array(each.value()) for each in tensors}


def family_named_by(config):
    """Our row for a config object of transformers."""
    return family_of_config({"model_type": config.model_type}, "config")
