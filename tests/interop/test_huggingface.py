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
MODELS = {
    "llama": GROUPED | dict(rope_scaling="llama3", rope_factor=8.0, rope_original_positions=16, rope_theta=5e5),
    "qwen3": GROUPED | dict(qk_norm=True, head_width=12, tied_embeddings=False),
    "qwen2": GROUPED | dict(bias="qkv", window=8, window_pattern="LS"),
    "mistral": GROUPED | dict(window=8, window_pattern="S"),
    "smollm3": GROUPED | dict(window_pattern="LN"),
    "olmo2": GROUPED | dict(norm_placement="post", qk_norm=True, qk_norm_over="projection"),
    "granite": GROUPED | dict(embedding_multiplier=12.0, logit_multiplier=1 / 49, attention_scale=0.07),
    "phi3": GROUPED | dict(rope_fraction=0.5),
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


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_comes_back_exactly(tmp_path, name):
    params, model = written(tmp_path, name)
    assert family_for(model).name == name
    opened = open_model(tmp_path)
    assert not differences_of(model, opened.model) and opened.left == []
    assert_same(params, opened.params())


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
