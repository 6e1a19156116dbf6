"""Small random models of every family that can be exported, and runs of them."""

import dataclasses
import json

import jax
import numpy as np
from random_models import TOKENIZER, make_model

from gptjax.config import default, to_json
from gptjax.interop.huggingface.families import FAMILIES
from gptjax.interop.huggingface.model_folder import write_model
from gptjax.settings import freeze
from gptjax.training.checkpoints.format import start_save
from gptjax.training.checkpoints.run_metadata import run_metadata
from gptjax.training.metrics import init_monitor
from gptjax.training.state import TrainState

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
SPECIAL_IDS = {"bos_token_id": TOKENIZER.eos_id, "eos_token_id": TOKENIZER.eos_id, "pad_token_id": TOKENIZER.pad_id}


def written(folder, name, **options):
    """Writes the model of a family into a folder of transformers; returns its parameters and settings."""
    params, config = make_model(**MODELS[name])
    folder.mkdir(parents=True, exist_ok=True)
    options = {"special_ids": SPECIAL_IDS, "facts": {}} | options
    write_model(folder, FAMILIES[name], config.model, params, **options)
    return params, config.model


def save_run(folder, change=lambda params: params, template=None, **model):
    """Writes a run at step 3 whose model is random, with the tokenizer of bytes; returns its settings."""
    params, config = make_model(**model)
    params = change(params)
    section = default()
    section.data.sequence_length = config.model.max_positions
    section.training.objective = "seq2seq" if config.model.family == "encoder_decoder" else "next_token"
    settings = dataclasses.replace(freeze(section), model=config.model)
    folder.mkdir(parents=True)
    TOKENIZER.save(folder)
    (folder / "config.json").write_text(to_json(settings))
    fingerprint = {"tokenizer_hash": TOKENIZER.hash, "begin_id": TOKENIZER.eos_id}
    if template is not None:
        fingerprint["template"] = json.loads(json.dumps(template.to_json()))
    metadata = run_metadata(settings, fingerprint, tokens=0) | {"step": 3, "metrics": {}}
    state = TrainState(jax.numpy.int32(3), jax.tree.map(np.asarray, params), (), None, init_monitor())
    path = (folder / "checkpoints" / "3").absolute()
    path.parent.mkdir()
    start_save(path, jax.tree.map(jax.numpy.asarray, state), metadata).result()
    return settings
