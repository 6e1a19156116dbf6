"""Models written as folders of transformers come back exactly, and what a family cannot express is named."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from random_models import make_model
from safetensors.numpy import load_file

from gptjax.config import ConfigError
from gptjax.interop.huggingface.equivalence import differences_of
from gptjax.interop.huggingface.families import FAMILIES, family_for
from gptjax.interop.huggingface.model_folder import open_model, write_model

GROUPED = dict(num_kv_heads=2, feedforward_width=48)
GEMMA = GROUPED | dict(norm_placement="sandwich", embedding_multiplier=32**0.5, feedforward="geglu")
LAYER_NORM = dict(norm="layernorm", bias="all")
MODELS = {
    "llama": GROUPED | dict(rope_scaling="llama3", rope_factor=8.0, rope_original_positions=16, rope_theta=5e5),
    "qwen3": GROUPED | dict(qk_norm=True, head_width=12, tied_embeddings=False),
    "qwen2": GROUPED | dict(bias="qkv", window=8, window_pattern="LS"),
    "mistral": GROUPED | dict(window=8, window_pattern="S"),
    "smollm3": GROUPED | dict(window_pattern="LN"),
    "olmo2": GROUPED | dict(norm_placement="post", qk_norm=True, qk_norm_over="projection"),
    "granite": GROUPED | dict(embedding_multiplier=12.0, logit_multiplier=1 / 49, attention_scale=0.07),
    "phi3": GROUPED | dict(rope_fraction=0.5),
    "gemma2": GEMMA | dict(window=8, window_pattern="SL", attention_softcap=50.0, logit_softcap=30.0),
    "gemma3": GEMMA
    | dict(
        qk_norm=True, window=8, window_pattern="SSL", rope_local_theta=100.0, rope_scaling="linear", rope_factor=8.0
    ),
    "gpt2": LAYER_NORM | dict(feedforward="gelu", position="learned"),
    "gpt_neox": LAYER_NORM
    | dict(feedforward="gelu_exact", parallel_residual=True, rope_fraction=0.25, tied_embeddings=False),
    "mpt": LAYER_NORM | dict(bias="none", feedforward="gelu_exact", position="alibi"),
    "qwen3_moe": GROUPED | dict(qk_norm=True, num_experts=3, router_normalized=True),
    "olmoe": GROUPED | dict(qk_norm=True, qk_norm_over="projection", num_experts=3, tied_embeddings=False),
    "mixtral": GROUPED | dict(num_experts=3, router_normalized=True),
    "glm4_moe": GROUPED
    | dict(num_experts=3, shared_experts=1, router_scores="sigmoid", router_bias=True, router_scale=2.5, num_layers=3)
    | dict(router_normalized=True, rope_fraction=0.5, first_dense_layers=1, first_dense_width=40),
    "gpt_oss": GROUPED
    | dict(feedforward="swiglu_clamped", attention_sinks=True, bias="qkv+output+feedforward", window=8)
    | dict(window_pattern="SL", rope_scaling="yarn", rope_factor=8.0, rope_original_positions=16, rope_truncate=False),
    "t5gemma": GEMMA | dict(family="encoder_decoder", shared_embeddings=False, num_encoder_layers=1),
    "marian": LAYER_NORM
    | dict(family="encoder_decoder", norm_placement="post_residual", position="sinusoidal", feedforward="relu"),
}


def written(folder, name, **options):
    params, config = make_model(**MODELS[name])
    folder.mkdir(parents=True, exist_ok=True)
    options = {"special_ids": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}, "facts": {}} | options
    write_model(folder, FAMILIES[name], config.model, params, **options)
    return params, config.model


def assert_same(params, others):
    flat, found = flatten_dict(params), flatten_dict(others)
    assert flat.keys() == found.keys()
    for path, array in flat.items():
        np.testing.assert_array_equal(found[path], array, err_msg="/".join(path))


def without_offsets(params, name):
    """Gemma's files have scales minus one, which rounds them: this is what a file can hold."""
    if "gemma" not in name:
        return params
    one = np.float32(1)
    return jax.tree_util.tree_map_with_path(lambda path, x: (x - one) + one if path[-1].key == "scale" else x, params)


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_comes_back_exactly(tmp_path, name):
    params, model = written(tmp_path, name)
    assert family_for(model).name == name
    opened = open_model(tmp_path)
    assert not differences_of(model, opened.model) and opened.left == []
    assert_same(without_offsets(params, name), opened.params())


def test_the_files_have_the_names_and_layouts_of_transformers(tmp_path):
    params, _ = written(tmp_path, "qwen3")
    tensors = load_file(tmp_path / "model.safetensors")
    query = np.asarray(params["layers"]["attention"]["query"][1])
    np.testing.assert_array_equal(tensors["model.layers.1.self_attn.q_proj.weight"], query.reshape(32, 48).T)
    np.testing.assert_array_equal(tensors["lm_head.weight"], params["head"].T)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["rope_theta"] == content["rope_parameters"]["rope_theta"] == 10_000.0
    assert content["torch_dtype"] == content["dtype"] == "float32" and content["pad_token_id"] is None


@pytest.mark.parametrize("fields, family, said", [(dict(logit_softcap=30.0), "llama", "model.logit_softcap = 30.0")])
def test_what_a_family_cannot_express_is_named(fields, family, said):
    _, config = make_model(**fields)
    with pytest.raises(ConfigError, match=said):
        family_for(config.model, family)


def test_numbers_that_are_not_finite_are_named(tmp_path):
    params, config = make_model()
    params = jax.tree.map(np.asarray, params)
    params["layers"]["feedforward"]["up"][1, 2, 3] = np.nan
    with pytest.raises(ConfigError, match=r"model.layers.1.mlp.up_proj.weight has 1 numbers that are not finite"):
        write_model(tmp_path, FAMILIES["llama"], config.model, params, special_ids={}, facts={})
