"""Parameters and FLOPs of the decoder by both conventions."""

import numpy as np
import pytest

from gptjax.config import default
from gptjax.model.families import family_of
from gptjax.model.flops import mean_keys_seen
from gptjax.model.parameters import count_parameters
from gptjax.model.resolve import resolve_model

L, D, N, K, H, F, V, T = 4, 16, 4, 2, 4, 24, 50, 32


def model_config(**overrides):
    config = default().model
    config.update(dict(num_layers=L, width=D, num_heads=N, num_kv_heads=K, head_width=H, feedforward_width=F))
    config.update(dict(vocab_size=V, feedforward="gelu") | overrides)
    return resolve_model(config, platform="cpu", vocab_size=V, sequence_length=T)


def counts(**overrides):
    return count_parameters(family_of(model_config(**overrides)).declarations)


def test_a_tied_embedding_counts_as_the_head_and_lookups_never_count():
    layers = L * (D * (2 * N + 2 * K) * H + 2 * D * F + 2 * D) + D
    tied, untied = counts(), counts(tied_embeddings=False)
    assert (tied.total, tied.non_embedding, tied.multiplied) == (layers + V * D, layers, layers + V * D)
    assert (untied.total, untied.non_embedding, untied.multiplied) == (layers + 2 * V * D,) + (layers + V * D,) * 2
    learned = counts(position="learned")
    assert learned.total == tied.total + T * D and learned.multiplied == tied.multiplied


def test_flops_by_both_conventions():
    n = counts().multiplied
    flops = family_of(model_config()).flops_per_token(T)
    assert flops == {"causal": 6 * n + 6 * L * N * H * T, "full": 6 * n + 12 * L * N * H * T}


def test_grouped_query_attention_saves_parameters_but_no_flops():
    many, few = (family_of(model_config(num_kv_heads=k)).flops_per_token(T) for k in (4, 1))
    assert many["causal"] - few["causal"] == 6 * (2 * L * D * 3 * H)


def test_gpt2_small_has_its_published_figure():
    # 124M at T = 1024: 6 · 123.65M (without positions) + 12 · 12 · 768 · 1024
    gpt2 = dict(num_layers=12, width=768, num_heads=12, num_kv_heads=12, head_width=64, feedforward_width=3072)
    gpt2 |= dict(vocab_size=50257, position="learned", max_positions=1024, norm="layernorm", bias="all")
    flops = family_of(model_config(**gpt2)).flops_per_token(1024)
    assert flops["full"] == 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024


@pytest.mark.parametrize("window", [0, 1, 100, 511, 512, 4096])
def test_keys_seen_equal_those_of_the_mask(window):
    length = 512
    query, key = np.arange(length)[:, None], np.arange(length)[None]
    mask = (key <= query) & (key > query - (window or length))
    assert mean_keys_seen(length, window, "causal") == pytest.approx(mask.sum(1).mean(), abs=0.51)
    assert mean_keys_seen(length, window, "full") == mask.sum(1).max()


def test_window_pattern_repeats_over_the_layers():
    config = model_config(window=8, window_pattern="SSSL")
    n = counts().multiplied
    assert family_of(config).flops_per_token(T)["full"] == 6 * n + 12 * N * H * (3 * 8 + T)
    assert family_of(config).flops_per_token(T)["causal"] == 6 * n + 12 * N * H * (3 * 8 * (1 - 8 / 64) + T / 2)
