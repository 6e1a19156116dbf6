"""Logits of small random models of four families: transformers' own code in float64 against ours in float32."""

import jax
import numpy as np
import pytest
from transformers_names import gpt2_names, llama_names

from gptjax.config import default
from gptjax.model.decoder import Decoder
from gptjax.model.resolve import resolve_model

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


@pytest.mark.parametrize("family", [gpt2, llama, qwen3, mistral])
@pytest.mark.parametrize("backend", ["reference", "xla"])
def test_logits_equal_transformers(family, backend, random_params):
    kind, theirs, names, ours = family()
    section = default().model
    section.update(dict(num_layers=L, width=D, num_heads=4, attention=backend, max_positions=64) | ours)
    config = resolve_model(section, platform="cpu", vocab_size=V, sequence_length=T)
    params = random_params(config)
    theirs._attn_implementation = "eager"
    model = kind(theirs).to(torch.float64).eval()
    given = {
        name: torch.tensor(np.ascontiguousarray(array), dtype=torch.float64) for name, array in names(params).items()
    }
    missing, unexpected = model.load_state_dict(given, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}  # tied
    model.tie_weights()

    tokens = np.random.default_rng(1).integers(0, V, (2, T))
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits.numpy()
    actual = jax.jit(lambda params: Decoder(config).apply({"params": params}, tokens))(params)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=3e-5 * np.abs(expected).max())
