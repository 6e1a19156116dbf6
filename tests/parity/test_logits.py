"""Logits of small random models of many families, compared with transformers' own code in float64 and float32."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers_names import (
    gemma_names,
    gpt2_names,
    gpt_oss_names,
    llama_names,
    marian_names,
    moe_names,
    mpt_names,
    neox_names,
    olmo2_names,
    phi3_names,
    t5gemma_names,
)

from gptjax.config import default
from gptjax.model.families import family_named, family_of
from gptjax.model.parameters import count_parameters
from gptjax.user_code import load_config

torch = pytest.importorskip("torch", reason="needs pip install 'gptjax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gptjax[parity]'")

V, D, L, T = 61, 32, 3, 40
SOURCE_LENGTHS = (24, 17)  # of encoder–decoders; the second one is padded
SIZES = dict(hidden_size=D, num_hidden_layers=L, vocab_size=V, intermediate_size=48, max_position_embeddings=64)
HEADS = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6, attention_bias=False)
LLAMA = dict(num_kv_heads=2, feedforward_width=48, tied_embeddings=False, norm_epsilon=1e-6)
LLAMA3 = dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
GPT2 = dict(norm="layernorm", bias="all", feedforward="gelu", position="learned")


def gpt2():
    config = transformers.GPT2Config(n_embd=D, n_layer=L, n_head=4, vocab_size=V, n_positions=64)
    return transformers.GPT2LMHeadModel, config, gpt2_names, GPT2


def llama():
    rope = LLAMA3 | {"original_max_position_embeddings": 16}
    config = transformers.LlamaConfig(**SIZES, **HEADS, rope_parameters=rope)
    scaling = dict(rope_scaling="llama3", rope_factor=8.0, rope_original_positions=16)
    return transformers.LlamaForCausalLM, config, llama_names, LLAMA | scaling


def qwen3():
    rope = dict(rope_type="default", rope_theta=1e6)
    config = transformers.Qwen3Config(
        **SIZES, **HEADS | {"head_dim": 12}, rope_parameters=rope, tie_word_embeddings=True
    )
    ours = LLAMA | dict(head_width=12, qk_norm=True, rope_theta=1e6, tied_embeddings=True)
    return transformers.Qwen3ForCausalLM, config, llama_names, ours


def mistral():
    heads = {name: value for name, value in HEADS.items() if name != "attention_bias"}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.MistralConfig(**SIZES, **heads, sliding_window=7, rope_parameters=rope)
    return transformers.MistralForCausalLM, config, llama_names, LLAMA | dict(window=7, window_pattern="S")


def qwen2():
    heads = {name: value for name, value in HEADS.items() if name not in ("attention_bias", "head_dim")}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.Qwen2Config(**SIZES, **heads, rope_parameters=rope)
    return transformers.Qwen2ForCausalLM, config, llama_names, LLAMA | dict(bias="qkv")


def phi3():
    heads = {name: value for name, value in HEADS.items() if name not in ("attention_bias", "head_dim")}
    rope = dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=1.0)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = transformers.Phi3Config(**SIZES, **heads, **ids, rope_parameters=rope, sliding_window=9)
    return transformers.Phi3ForCausalLM, config, phi3_names, LLAMA | dict(window=9, window_pattern="S")


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
    return transformers.Gemma2ForCausalLM, config, gemma_names, ours


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
    return transformers.Gemma3ForCausalLM, config, gemma_names, ours | dict(rope_scaling="linear", rope_factor=8.0)


def olmo2():
    heads = {name: value for name, value in HEADS.items() if name != "head_dim"}
    rope = dict(rope_type="default", rope_theta=5e5)
    config = transformers.Olmo2Config(**SIZES, **heads, rope_parameters=rope)
    ours = LLAMA | dict(norm_placement="post", qk_norm=True, qk_norm_over="projection", rope_theta=5e5)
    return transformers.Olmo2ForCausalLM, config, olmo2_names, ours


def smollm3():
    heads = {name: value for name, value in HEADS.items() if name != "head_dim"}
    rope = dict(rope_type="default", rope_theta=5e6)
    config = transformers.SmolLM3Config(
        **SIZES, **heads, rope_parameters=rope, no_rope_layers=[1, 0, 1], pad_token_id=0, tie_word_embeddings=True
    )
    ours = LLAMA | dict(window_pattern="LN", rope_theta=5e6, tied_embeddings=True)
    return transformers.SmolLM3ForCausalLM, config, llama_names, ours


def pythia():
    rope = dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.25)
    config = transformers.GPTNeoXConfig(**SIZES, num_attention_heads=4, rope_parameters=rope)
    ours = dict(norm="layernorm", bias="all", feedforward="gelu_exact", feedforward_width=48, parallel_residual=True)
    return transformers.GPTNeoXForCausalLM, config, neox_names, ours | dict(rope_fraction=0.25, tied_embeddings=False)


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
    return transformers.GraniteForCausalLM, config, llama_names, ours | dict(bias="qkv+output")


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
        gpt_oss_names,
        ours | dict(rope_original_positions=64, rope_truncate=False),
    )


def olmoe():
    heads = {name: value for name, value in HEADS.items() if name != "head_dim"}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.OlmoeConfig(**SIZES, **heads, rope_parameters=rope, num_experts=8, num_experts_per_tok=3)
    ours = LLAMA | dict(qk_norm=True, qk_norm_over="projection", num_experts=8, experts_per_token=3)
    return transformers.OlmoeForCausalLM, config, moe_names, ours


def qwen3_moe():
    rope = dict(rope_type="default", rope_theta=1e6)
    experts = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=20, norm_topk_prob=True)
    config = transformers.Qwen3MoeConfig(**SIZES, **HEADS, **experts, rope_parameters=rope)
    ours = LLAMA | dict(qk_norm=True, rope_theta=1e6, num_experts=6, router_normalized=True, feedforward_width=20)
    return transformers.Qwen3MoeForCausalLM, config, moe_names, ours


def mixtral():
    heads = {name: value for name, value in HEADS.items() if name != "attention_bias"}
    rope = dict(rope_type="default", rope_theta=1e4)
    config = transformers.MixtralConfig(**SIZES, **heads, rope_parameters=rope, num_local_experts=4)
    ours = LLAMA | dict(num_experts=4, router_normalized=True)
    return transformers.MixtralForCausalLM, config, moe_names, ours


def glm4_moe():
    """A router like DeepSeek-V3's: sigmoid, bias, scale and a shared expert, after a dense layer."""
    rope = dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)
    experts = dict(n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=20)
    experts |= dict(routed_scaling_factor=2.5, norm_topk_prob=True, n_group=1, topk_group=1, first_k_dense_replace=1)
    config = transformers.Glm4MoeConfig(**SIZES, **HEADS, **experts, rope_parameters=rope, use_qk_norm=True)
    ours = LLAMA | dict(qk_norm=True, num_experts=6, feedforward_width=20, shared_experts=1, router_scores="sigmoid")
    ours |= dict(router_bias=True, router_scale=2.5, router_normalized=True, rope_fraction=0.5)
    ours |= dict(first_dense_layers=1, first_dense_width=48)
    return transformers.Glm4MoeForCausalLM, config, moe_names, ours


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
    return transformers.Phi3ForCausalLM, config, phi3_names, LLAMA | ours


def mpt():
    config = transformers.MptConfig(d_model=D, n_heads=4, n_layers=L, vocab_size=V, max_seq_len=64)
    ours = dict(norm="layernorm", position="alibi", feedforward="gelu_exact")
    return transformers.MptForCausalLM, config, mpt_names, ours


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
        t5gemma_names,
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
    return transformers.MarianMTModel, config, marian_names, ours


FAMILIES = [gpt2, llama, qwen2, qwen3, mistral, phi3, gemma2, gemma3, olmo2, smollm3, pythia, granite]
FAMILIES += [gpt_oss, phi3_128k, mpt, t5gemma, marian]
FAMILIES += [olmoe, qwen3_moe, mixtral, glm4_moe]


class StandIn:
    """A module with some of its names replaced."""

    def __init__(self, module, **others):
        self.__dict__.update(others, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


@pytest.fixture
def without_float32(monkeypatch):
    """Uses float64 where both models round to float32 on purpose: norms, rotations, softmax, logits.

    The models' modules name the type; here that name is bound to the wider type."""

    def double(dtype):
        return jnp.dtype("float64" if dtype == "float32" else dtype)

    ours = [module for name, module in sys.modules.items() if name.startswith("gptjax.model.")]
    for module in ours:
        for name, others in (("jnp", dict(float32=jnp.float64, dtype=double)), ("np", dict(float32=np.float64))):
            if name in vars(module):
                monkeypatch.setattr(module, name, StandIn(getattr(module, name), **others))
    for family in FAMILIES:
        family()  # transformers imports each on first use
    theirs = [
        module
        for name, module in sys.modules.items()
        if name.startswith("transformers.")
        and name.rpartition(".")[2].startswith("modeling_")
        and "torch" in vars(module)
    ]
    for module in theirs:
        monkeypatch.setattr(module, "torch", StandIn(torch, float32=torch.float64, float=torch.float64))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)  # the type of numbers that become tensors, such as Gemma's embedding scale
    yield
    torch.set_default_dtype(torch.float32)


def largest_difference(family, backend, random_params, dtype):
    """The difference of our logits in `dtype` from transformers' in float64, as a share of the largest logit."""
    kind, theirs, names, ours = family()
    section = default().model
    section.update(dict(num_layers=L, width=D, num_heads=4, attention=backend, max_positions=64) | ours)
    config = family_named(section.family).resolve(section, platform="cpu", vocab_size=V, sequence_length=T)
    params = random_params(config)
    theirs._attn_implementation = theirs._experts_implementation = "eager"  # it computes in float64, too
    model = kind(theirs).to(torch.float64).eval()
    given = {
        name: torch.tensor(np.ascontiguousarray(array), dtype=torch.float64) for name, array in names(params).items()
    }
    missing, unexpected = model.load_state_dict(given, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight", "final_logits_bias"}  # tied; zero
    model.tie_weights()

    tokens, sources = (np.random.default_rng(seed).integers(0, V, (2, T)) for seed in (1, 2))
    streams = [tokens]
    inputs = dict(input_ids=torch.tensor(tokens))
    if config.family == "encoder_decoder":
        sources = sources[:, : max(SOURCE_LENGTHS)]
        streams = [sources, tokens, np.array(SOURCE_LENGTHS)]
        mask = torch.tensor(np.arange(sources.shape[1]) < np.array(SOURCE_LENGTHS)[:, None]).long()
        inputs = dict(input_ids=torch.tensor(sources), attention_mask=mask, decoder_input_ids=torch.tensor(tokens))
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    config = dataclasses.replace(config, dtype=dtype)
    params = jax.tree.map(lambda array: array.astype(dtype), params)
    actual = jax.jit(lambda params: family_of(config).module().apply({"params": params}, *streams))(params)
    assert actual.dtype == dtype and expected.dtype == np.float64
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_the_model_computes_the_same_function_as_transformers(family, backend, random_params, without_float32):
    """If one function is computed in two ways in float64, with sums of at most 61 terms, only the last digits (2e-16)
    may differ, and three layers multiply that by less than a thousand.
    """
    with jax.enable_x64(True):
        assert largest_difference(family, backend, random_params, "float64") < 1e-12


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_logits_differ_only_by_rounding(family, random_params):
    """Training computes in float32: at worst 64 roundings (6e-8 of a number) in a row.

    PyTorch's own float32 is as far from its float64: 0.7e-6 to 1.3e-6 of the largest logit here, ours 0.7e-6 to 2.5e-6.
    """
    assert largest_difference(family, "xla", random_params, "float32") < 64 * 2**-24


@pytest.mark.parametrize("size", ["base", "big"])
def test_the_original_transformer_has_as_many_parameters_as_pytorchs(size):
    """PyTorch's has no embeddings, and a norm after each stack."""
    section = load_config(f"configs/transformer.py:{size}").model
    config = family_named(section.family).resolve(section, platform="cpu", vocab_size=0, sequence_length=T)
    D = config.width
    with torch.device("meta"):
        theirs = torch.nn.Transformer(D, config.num_heads, 6, 6, config.feedforward_width)
    expected = sum(parameter.numel() for parameter in theirs.parameters()) - 2 * 2 * D + config.vocab_size * D
    assert count_parameters(family_of(config).declarations).total == expected


@pytest.mark.parametrize("size", ["2b-2b", "9b-9b"])
def test_t5gemma_has_as_many_parameters_as_transformers(size):
    section = load_config(f"configs/t5gemma.py:{size}").model
    config = family_named(section.family).resolve(section, platform="cpu", vocab_size=0, sequence_length=T)
    stack = dict(
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_width,
        intermediate_size=config.feedforward_width,
    )
    stacks = {name: transformers.T5GemmaModuleConfig(**stack) for name in ("encoder", "decoder")}
    with torch.device("meta"):
        theirs = transformers.T5GemmaForConditionalGeneration(transformers.T5GemmaConfig(**stacks))
    assert count_parameters(family_of(config).declarations).total == theirs.num_parameters()


@pytest.mark.parametrize("name", ["glm4.5_air", "glm4.5"])
def test_glm_has_as_many_parameters_as_transformers(name):
    section = load_config(f"configs/moe.py:{name}").model
    config = family_named(section.family).resolve(section, platform="cpu", vocab_size=0, sequence_length=T)
    theirs = transformers.Glm4MoeConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_width,
        attention_bias=config.bias == "qkv",
        use_qk_norm=config.qk_norm,
        intermediate_size=config.first_dense_width,
        first_k_dense_replace=config.first_dense_layers,
        moe_intermediate_size=config.feedforward_width,
        n_routed_experts=config.num_experts,
        num_mtp_layers=0,
    )
    with torch.device("meta"):
        model = transformers.Glm4MoeForCausalLM(theirs)
    biases = sum(each.numel() for name, each in model.named_buffers() if name.endswith("e_score_correction_bias"))
    assert count_parameters(family_of(config).declarations).total == model.num_parameters() + biases
