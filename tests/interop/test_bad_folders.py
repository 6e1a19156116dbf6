"""A folder that is no model, or not the one that its config.json describes, is refused in one sentence."""

import json
import shutil

import numpy as np
import pytest
from huggingface_models import written
from safetensors.numpy import load_file, save_file

from gptjax.config import ConfigError
from gptjax.interop.huggingface.model_folder import open_model
from gptjax.interop.huggingface.weights import INDEX


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    written(folder / "whole", "llama")
    written(folder / "shards", "qwen3", shard_size=50_000)
    written(folder / "experts", "mixtral")
    return folder


def copied(good, tmp_path, name="whole"):
    return shutil.copytree(good / name, tmp_path / "model")


def config(**changes):
    def change(folder):
        content = json.loads((folder / "config.json").read_text())
        content |= changes
        content = {name: value for name, value in content.items() if value != "REMOVED"}
        (folder / "config.json").write_text(json.dumps(content))

    return change


def tensors(change, file="model.safetensors"):
    def changed(folder):
        arrays = load_file(folder / file)
        change(arrays)
        save_file(arrays, folder / file)

    return changed


def with_nan(arrays):
    arrays["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan


def as_numbers(arrays):
    arrays["model.norm.weight"] = np.arange(32)


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


WRONG = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "no JSON": (lambda folder: (folder / "config.json").write_text('{"model_type": "lla'), "cut off in line 1"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "must hold a JSON object"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
    "pickled": (pickled, "has pytorch_model.bin, but no model.safetensors: a pickle can run any program"),
    "half a file": (cut, "is not a safetensors file that can be read"),
    "no model_type": (config(model_type="REMOVED"), "model_type = None: must be one of "),
    "another family": (config(model_type="lama"), "did you mean llama"),
    "another head": (config(architectures=["LlamaForSequenceClassification"]), "must be LlamaForCausalLM"),
    "odd heads": (config(architectures=7), "architectures = 7"),
    "a text": (config(hidden_size="wide"), "hidden_size = 'wide': must be a whole number"),
    "a missing size": (config(hidden_size="REMOVED"), "hidden_size is missing"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers = 0: must be at least 1"),
    "too many layers": (config(num_hidden_layers=10**9), "model.num_layers = 1000000000"),
    "more layers": (config(num_hidden_layers=9_999), "has 20 tensors; by config.json there must be at least 9,999"),
    "heads": (config(num_attention_heads=5), "must be divisible"),
    "a huge number": (config(rms_norm_eps=10**400), "rms_norm_eps"),
    "not a number": (config(rms_norm_eps=float("nan")), "rms_norm_eps = nan"),
    "activation": (config(hidden_act="mish"), "hidden_act = 'mish': must be one of silu"),
    "scaling": (config(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4}), "rope_type = 'dynamic'"),
    "two bases": (config(rope_theta=7.0), "disagree"),
    "unknown scaling": (
        config(rope_parameters={"rope_type": "linear", "factor": 2.0, "mscale": 1}, rope_theta=None, rope_scaling=None),
        "mscale = 1: must be left out",
    ),
    "quantized": (config(quantization_config={"bits": 4}), "quantization_config"),
    "another shape": (
        config(intermediate_size=47),
        r"(up|gate)_proj.weight has shape \[48, 32\]; by config.json it must have \[47, 32\]",
    ),
    "untied": (config(tie_word_embeddings=False), r"lm_head.weight is missing \(tie_word_embeddings is false\)"),
    "missing": (tensors(lambda arrays: arrays.pop("model.norm.weight")), "model.norm.weight is missing"),
    "unknown": (
        tensors(lambda arrays: arrays.update(extra=np.zeros(2, np.float32))),
        "extra belongs to no parameter of LlamaForCausalLM",
    ),
    "another head matrix": (
        tensors(lambda arrays: arrays.update({"lm_head.weight": np.ones((265, 32), np.float32)})),
        "lm_head.weight differs from model.embed_tokens.weight",
    ),
    "not finite": (tensors(with_nan), "up_proj.weight has 1 numbers that are not finite"),
    "whole numbers": (tensors(as_numbers), "model.norm.weight has numbers of type I64"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_folder_is_refused(what, good, tmp_path):
    spoil, said = WRONG[what]
    folder = copied(good, tmp_path)
    spoil(folder)
    with pytest.raises(ConfigError, match=said) as refused:
        open_model(folder).params()
    assert "\n" not in str(refused.value)


def index(**changes):
    def change(folder):
        content = json.loads((folder / INDEX).read_text())
        content["weight_map"] |= changes
        (folder / INDEX).write_text(json.dumps(content))

    return change


OF_SHARDS = {
    "a shard": (lambda folder: next(folder.glob("model-00002*")).unlink(), "model-00002-of-0000.* is missing"),
    "elsewhere": (index(x="../../secret.safetensors"), "must be the name of a file in the same folder"),
    "not there": (index(x="model-00001-of-00004.safetensors"), "x is not in model-00001-of-00004.safetensors"),
    "no map": (lambda folder: (folder / INDEX).write_text('{"weight_map": 3}'), "weight_map must be an object"),
    "no index": (lambda folder: (folder / INDEX).unlink(), "but neither model.safetensors nor "),
}


@pytest.mark.parametrize("what", OF_SHARDS)
def test_wrong_shards_are_refused(what, good, tmp_path):
    spoil, said = OF_SHARDS[what]
    folder = copied(good, tmp_path, "shards")
    assert len(list(folder.glob("model-*-of-00004.safetensors"))) == 4
    spoil(folder)
    with pytest.raises(ConfigError, match=said):
        open_model(folder)


def test_a_number_of_experts_that_no_file_has_is_refused_at_once(good, tmp_path):
    folder = copied(good, tmp_path, "experts")
    config(num_local_experts=10**8)(folder)
    with pytest.raises(ConfigError, match="there must be at least 200,000,000"):
        open_model(folder)
