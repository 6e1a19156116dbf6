"""The config.json of published models means the shapes in configs/, and files of older programs are read."""

import json
import shutil

import numpy as np
import pytest
from huggingface_models import MODELS, written
from random_models import make_model
from safetensors.numpy import load_file, save_file

from gptjax.config.user_code import load_config
from gptjax.interop.huggingface.equivalence import differences_of
from gptjax.interop.huggingface.families import FAMILIES, family_of_config
from gptjax.interop.huggingface.model_folder import open_model
from gptjax.interop.huggingface.tensors import places_of, written_tensors
from gptjax.model.families import family_named, family_of

LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
# As on the Hugging Face hub, without keys that say nothing about the function.
PUBLISHED = {
    "llama.py:1b": dict(  # meta-llama/Llama-3.2-1B
        model_type="llama",
        architectures=["LlamaForCausalLM"],
        attention_bias=False,
        head_dim=64,
        hidden_act="silu",
        hidden_size=2048,
        intermediate_size=8192,
        max_position_embeddings=131072,
        mlp_bias=False,
        num_attention_heads=32,
        num_hidden_layers=16,
        num_key_value_heads=8,
        rms_norm_eps=1e-5,
        rope_scaling=LLAMA3 | dict(factor=32.0),
        rope_theta=500000.0,
        tie_word_embeddings=True,
        vocab_size=128256,
    ),
    "llama.py:135m": dict(  # HuggingFaceTB/SmolLM2-135M
        model_type="llama",
        hidden_act="silu",
        hidden_size=576,
        intermediate_size=1536,
        is_llama_config=True,
        max_position_embeddings=8192,
        num_attention_heads=9,
        num_hidden_layers=30,
        num_key_value_heads=3,
        rms_norm_eps=1e-5,
        rope_interleaved=False,
        rope_scaling=None,
        rope_theta=100000,
        tie_word_embeddings=True,
        vocab_size=49152,
    ),
    "qwen3.py:0.6b": dict(  # Qwen/Qwen3-0.6B
        model_type="qwen3",
        attention_bias=False,
        head_dim=128,
        hidden_act="silu",
        hidden_size=1024,
        intermediate_size=3072,
        max_position_embeddings=40960,
        max_window_layers=28,
        num_attention_heads=16,
        num_hidden_layers=28,
        num_key_value_heads=8,
        rms_norm_eps=1e-6,
        rope_scaling=None,
        rope_theta=1000000,
        sliding_window=None,
        tie_word_embeddings=True,
        use_sliding_window=False,
        vocab_size=151936,
    ),
    "gemma.py:3-1b": dict(  # google/gemma-3-1b-it
        model_type="gemma3_text",
        architectures=["Gemma3ForCausalLM"],
        attention_bias=False,
        attn_logit_softcapping=None,
        cache_implementation="hybrid",
        final_logit_softcapping=None,
        head_dim=256,
        hidden_activation="gelu_pytorch_tanh",
        hidden_size=1152,
        intermediate_size=6912,
        max_position_embeddings=32768,
        num_attention_heads=4,
        num_hidden_layers=26,
        num_key_value_heads=1,
        query_pre_attn_scalar=256,
        rms_norm_eps=1e-6,
        rope_local_base_freq=10000,
        rope_scaling=None,
        rope_theta=1000000,
        sliding_window=512,
        sliding_window_pattern=6,
        vocab_size=262144,
    ),
    "gpt2.py:124m": dict(  # openai-community/gpt2
        model_type="gpt2",
        activation_function="gelu_new",
        architectures=["GPT2LMHeadModel"],
        layer_norm_epsilon=1e-5,
        n_ctx=1024,
        n_embd=768,
        n_head=12,
        n_layer=12,
        n_positions=1024,
        vocab_size=50257,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_means_our_shape(name):
    section = load_config(f"configs/{name}").model
    vocab_size = PUBLISHED[name]["vocab_size"]
    ours = family_named("decoder").resolve(section, platform="", vocab_size=vocab_size, sequence_length=1024)
    found, left = family_of_config(PUBLISHED[name], "config.json").read(PUBLISHED[name])
    assert {field: both for field, both in differences_of(found, ours).items() if field != "max_positions"} == {}
    assert left == []


def without_prefix(arrays):
    """The first GPT-2 files: names without the model's prefix, and masks that are constant."""
    named = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    masks = {f"h.{layer}.attn.bias": np.tril(np.ones((1, 1, 48, 48), np.float32)) for layer in range(2)}
    return named | masks


def repeated(arrays):
    """Files that have a tied output matrix as well."""
    return arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"].copy()}


@pytest.mark.parametrize(
    "name, change, told", [("gpt2", without_prefix, "2 tensors without"), ("llama", repeated, "repeats")]
)
def test_files_of_other_programs_are_read(name, change, told, tmp_path):
    written(tmp_path / "ours", name)
    shutil.copytree(tmp_path / "ours", tmp_path / "theirs")
    file = tmp_path / "theirs/model.safetensors"
    save_file(change(load_file(file)), file)
    ours, theirs = open_model(tmp_path / "ours"), open_model(tmp_path / "theirs")
    for one, other in zip(ours.places, theirs.places):
        assert one == other
    found = theirs.params()
    assert np.array_equal(found["embedding"], ours.params()["embedding"])
    assert [told in left for left in theirs.left] == [True]


@pytest.mark.parametrize("name", ["mixtral", "glm4_moe"])
def test_experts_are_read_from_one_tensor_as_well(name, tmp_path):
    """transformers 5 keeps all experts of a layer in one tensor."""
    params, model = written(tmp_path, name)
    places = places_of(FAMILIES[name].layouts[1](model), family_of(model).declarations)
    joined = {each.name: np.ascontiguousarray(each.value()) for each in written_tensors(places, [], model, params)}
    assert joined["model.layers.1.mlp.experts.gate_up_proj"].shape == (3, 96, 32)
    save_file(joined, tmp_path / "model.safetensors")
    found = open_model(tmp_path).params()
    for part in ("gate", "up", "down"):
        assert np.array_equal(found["layers"]["feedforward"][part], params["layers"]["feedforward"][part])


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "gpt_oss"])
@pytest.mark.parametrize("older", [True, False])
def test_rotary_keys_of_either_version_are_enough(name, older):
    """Version 4 of transformers knows no rope_parameters, and version 5 writes nothing else."""
    _, config = make_model(**MODELS[name])
    content = FAMILIES[name].write(config.model)
    old = {
        "rope_theta",
        "rope_scaling",
        "rope_local_base_freq",
        "rotary_emb_base",
        "rotary_pct",
        "partial_rotary_factor",
    }
    drop = {"rope_parameters"} if older else old
    content = json.loads(json.dumps({key: value for key, value in content.items() if key not in drop}))
    found, _ = FAMILIES[name].read(content)
    assert differences_of(found, config.model) == {}
