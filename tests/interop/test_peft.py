"""Adapters in PEFT's layout come back as they were, in the names of transformers; what does not fit is refused."""

import json
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from gptjax.config import ConfigError
from gptjax.interop.peft import CONFIG, WEIGHTS, read_adapter, write_adapter
from gptjax.model import lora
from gptjax.model.families import family_of

FAMILIES = [
    dict(model__lora_dora=True, model__lora_target=".*/(query|down)"),
    dict(model__family="encoder_decoder", training__objective="seq2seq", model__lora_rslora=True),
    dict(model__family="classifier", model__body="decoder", model__num_classes=3, training__objective="classification"),
    dict(model__num_experts=2, model__shared_experts=1, model__first_dense_layers=1, model__lora_also="embedding"),
    dict(model__num_experts=2, model__lora_target=".*(query|up|down)"),
]


def written(config, folder):
    """Random parameters with adapters, written into the folder."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    declared = family_of(config).declarations
    params = jax.tree.map(lambda p: draw.normal(size=p.shape).astype(np.float32), declared)
    write_adapter(folder, config, params, base="0123456789abcdef", base_name="runs/base")
    return params


@pytest.mark.parametrize("fields", FAMILIES, ids=["dora", "pairs", "classifier", "experts", "routed"])
def test_an_adapter_comes_back(tiny_config, tmp_path, fields):
    config = tiny_config(model__lora_rank=2, model__lora_alpha=8.0, **fields).model
    params = written(config, tmp_path / "adapter")
    found, arrays, base = read_adapter(tmp_path / "adapter", lora.without_adapters(config))
    assert base == "0123456789abcdef"
    declared = flatten_dict(family_of(config).declarations)
    flat, arrays = flatten_dict(params), flatten_dict(arrays)
    assert arrays.keys() == {path for path, parameter in declared.items() if parameter.trained}
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, flat[path])
    assert family_of(found).declarations.keys() == family_of(config).declarations.keys()
    assert {path: p.shape for path, p in flatten_dict(family_of(found).declarations).items()} == {
        path: p.shape for path, p in declared.items()
    }
    assert lora.scale_of(found) == lora.scale_of(config)


def test_the_files_have_the_names_and_shapes_of_peft(tiny_config, tmp_path):
    config = tiny_config(model__lora_rank=2, model__lora_dora=True).model
    params = written(config, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    query = "base_model.model.model.layers.1.self_attn.q_proj"
    a = params["layers"]["attention"]["query_lora"]["a"][1]
    np.testing.assert_array_equal(tensors[f"{query}.lora_A.weight"], a.T)
    assert tensors[f"{query}.lora_B.weight"].shape == (16, 2)
    assert tensors[f"{query}.lora_magnitude_vector"].shape == (16,)
    kinds = {re.sub(r"layers\.\d", "layers.N", name).rpartition(".lora_")[0] for name in tensors}
    assert {kind.rpartition(".")[2] for kind in kinds} == {
        *(f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down"))
    }
    content = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert content["target_modules"] == sorted({kind.rpartition(".")[2] for kind in kinds})
    assert (content["r"], content["use_dora"], content["modules_to_save"]) == (2, True, None)


def changed_config(**fields):
    def change(folder):
        content = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(content | fields))

    return change


def changed_arrays(change):
    def write(folder):
        arrays = load_file(folder / WEIGHTS)
        save_file(change(arrays), folder / WEIGHTS)

    return write


QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: (folder / CONFIG).unlink(), "adapter_config.json: cannot be read"),
        (lambda folder: (folder / CONFIG).write_text("{"), "adapter_config.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "adapter_model.safetensors: cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\x80\x04pickle"), "is not a file of arrays"),
        (changed_config(peft_type="LOHA"), "peft_type = 'LOHA': must be 'LORA'"),
        (changed_config(rank_pattern={"q_proj": 4}), "rank_pattern"),
        (changed_config(r="many"), "r = 'many': must be a number"),
        (changed_config(r=4), r"has shape \[2, 16\]; the base needs \[4, 16\]"),
        (changed_arrays(lambda a: {n: x for n, x in a.items() if n != QUERY}), "q_proj.lora_A.weight is missing"),
        (changed_arrays(lambda a: a | {QUERY.replace(".0.", ".7."): a[QUERY]}), "layers.7.*another model"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_config, tmp_path, damage, message):
    config = tiny_config(model__lora_rank=2).model
    written(config, tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=message):
        read_adapter(tmp_path / "adapter", lora.without_adapters(config))
