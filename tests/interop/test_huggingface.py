"""Models written as folders of transformers come back exactly, and what a family cannot express is named."""

import dataclasses
import json
import tracemalloc
import weakref

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from huggingface_models import MODELS, written
from random_models import make_model
from safetensors.numpy import load_file

from gptjax.config import ConfigError
from gptjax.interop.huggingface import weights
from gptjax.interop.huggingface.equivalence import differences_of
from gptjax.interop.huggingface.families import FAMILIES, family_for
from gptjax.interop.huggingface.model_folder import as_written, open_model, write_model
from gptjax.interop.huggingface.tensors import Written
from gptjax.interop.huggingface.weights import write_weights


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
    assert content["torch_dtype"] == content["dtype"] == "float32" and content["pad_token_id"] == 3


@pytest.mark.parametrize("fields, family, said", [(dict(logit_softcap=30.0), "llama", "model.logit_softcap = 30.0")])
def test_what_a_family_cannot_express_is_named(fields, family, said):
    _, config = make_model(**fields)
    with pytest.raises(ConfigError, match=said):
        family_for(config.model, family)


def test_a_classifier_is_not_exported():
    _, config = make_model()
    with pytest.raises(ConfigError, match=r"model.family = 'classifier': only models of the families decoder and"):
        family_for(dataclasses.replace(config.model, family="classifier"))


def test_numbers_that_are_not_finite_are_named(tmp_path):
    params, config = make_model()
    params = jax.tree.map(np.asarray, params)
    params["layers"]["feedforward"]["up"][1, 2, 3] = np.nan
    with pytest.raises(ConfigError, match=r"model.layers.1.mlp.up_proj.weight has 1 numbers that are not finite"):
        write_model(tmp_path, FAMILIES["llama"], config.model, params, special_ids={}, facts={})


def test_one_file_of_tensors_is_in_memory_at_a_time(tmp_path):
    megabyte = 2**20
    tensors = [Written(f"t{i}", (megabyte // 4,), lambda: np.ones(megabyte // 4, np.float32)) for i in range(12)]
    tracemalloc.start()
    files = write_weights(tmp_path, tensors, "float32", 3 * megabyte, {})
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(files) == 4 and largest < 4.5 * megabyte


def test_files_are_opened_anew_so_that_what_was_read_does_not_stay_in_memory(tmp_path, monkeypatch):
    params, _ = written(tmp_path, "llama", shard_size=40_000)
    opened: list[str] = []
    open_file = weights._opened
    monkeypatch.setattr(weights, "_MAPPED", 30_000)
    monkeypatch.setattr(weights, "_opened", lambda path: opened.append(path.name) or open_file(path))
    folder = open_model(tmp_path)
    assert len(opened) == len(set(opened)) > 1
    assert_same(folder.params(), params)
    assert len(opened) > len(set(opened))


def test_parameters_as_written_take_the_place_of_the_parameters():
    params, config = make_model(**MODELS["llama"])
    params = jax.tree.map(jax.numpy.asarray, params)
    expected = np.asarray(params["layers"]["attention"]["query"]).astype(ml_dtypes.bfloat16).astype(np.float32)
    given = weakref.ref(params["layers"]["attention"]["query"])
    rounded = as_written(FAMILIES["llama"], config.model, params, "bfloat16")
    assert not jax.tree.leaves(params) and given() is None
    np.testing.assert_array_equal(rounded["layers"]["attention"]["query"], expected)
