"""Marian: the original Transformer, an encoder and a decoder with sinusoidal positions and one table of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.keys import Keys
from gptjax.interop.huggingface.rules import PLAIN, Rule, choice, fixed, same, says, without_effect
from gptjax.interop.huggingface.tensors import Constant, Tensor
from gptjax.settings import ModelSettings


def marian_tensors(model: ModelSettings) -> list[Tensor]:
    tensors = [Tensor("model.shared.weight", "embedding")]
    for side, stack in (("encoder", "encoder/layers"), ("decoder", "layers")):
        name = f"model.{side}.layers.{{layer}}"
        for ours, theirs in (("attention", "self_attn"), ("cross_attention", "encoder_attn")):
            for part, projection in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "out")):
                there = f"{name}.{theirs}.{projection}_proj"
                tensors.append(Tensor(f"{there}.weight", f"{stack}/{ours}/{part}"))
                tensors.append(Tensor(f"{there}.bias", f"{stack}/{ours}/{part}_bias"))
            tensors += _norms(f"{name}.{theirs}_layer_norm", f"{stack}/{ours}_post_norm")
        for ours, theirs in (("up", "fc1"), ("down", "fc2")):
            tensors.append(Tensor(f"{name}.{theirs}.weight", f"{stack}/feedforward/{ours}"))
            tensors.append(Tensor(f"{name}.{theirs}.bias", f"{stack}/feedforward/{ours}_bias"))
        tensors += _norms(f"{name}.final_layer_norm", f"{stack}/feedforward_post_norm")
    return tensors


def _norms(name: str, path: str) -> list[Tensor]:
    return [Tensor(f"{name}.weight", f"{path}/scale"), Tensor(f"{name}.bias", f"{path}/bias")]


def _sines(model: ModelSettings, positions: int) -> np.ndarray:
    angles = np.arange(positions)[:, None] / 10_000.0 ** (np.arange(0, model.width, 2) / model.width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _constants(model: ModelSettings) -> list[Constant]:
    return [
        Constant("final_logits_bias", lambda model: np.zeros((1, model.vocab_size), np.float32)),
        Constant(
            "model.encoder.embed_positions.weight", lambda model: _sines(model, model.max_source_positions), False
        ),
        Constant("model.decoder.embed_positions.weight", lambda model: _sines(model, model.max_positions), False),
    ]


def _both(end: str, ours: str) -> Rule:
    """A key of the encoder and a key of the decoder that must be equal."""

    def read(keys: Keys) -> dict[str, Any]:
        settings = same(f"decoder_{end}", ours).read(keys)
        if (other := keys.get(f"encoder_{end}", int)) != settings[ours]:
            raise keys.error(f"encoder_{end}", other, f"that of the decoder, {settings[ours]}")
        return settings

    return Rule(lambda model: {f"{side}_{end}": model[ours] for side in ("encoder", "decoder")}, read)


def _heads() -> Rule:
    def read(keys: Keys) -> dict[str, Any]:
        settings = _both("attention_heads", "num_heads").read(keys)
        heads, width = settings["num_heads"], keys.get("d_model", int)
        if width % heads:
            raise keys.error("d_model", width, f"a multiple of {heads} heads")
        return settings | {"num_kv_heads": heads, "head_width": width // heads}

    return Rule(_both("attention_heads", "num_heads").write, read)


def _positions() -> Rule:
    def read(keys: Keys) -> dict[str, Any]:
        settings = same("max_position_embeddings", "max_positions").read(keys)
        return settings | {"max_source_positions": settings["max_positions"]}

    return Rule(lambda model: {"max_position_embeddings": model.max_positions}, read)


def _vocabulary() -> Rule:
    def read(keys: Keys) -> dict[str, Any]:
        settings = same("vocab_size", "vocab_size").read(keys)
        if (other := keys.get("decoder_vocab_size", int, settings["vocab_size"])) != settings["vocab_size"]:
            raise keys.error("decoder_vocab_size", other, f"vocab_size = {settings['vocab_size']}")
        return settings | {"source_vocab_size": settings["vocab_size"]}

    return Rule(lambda model: {"vocab_size": model.vocab_size, "decoder_vocab_size": model.vocab_size}, read)


def _scale() -> Rule:
    """Our sinusoidal models multiply embeddings by the square root of the width themselves."""

    def read(keys: Keys) -> dict[str, Any]:
        scaled = keys.get("scale_embedding", bool, False)
        return {"embedding_multiplier": 1.0 if scaled else float(keys.get("d_model", int)) ** -0.5}

    return Rule(lambda model: {"scale_embedding": model.embedding_multiplier == 1.0}, read)


_TIED = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
MARIAN = Family(
    "marian",
    "MarianMTModel",
    "marian",
    (
        _vocabulary(),
        same("d_model", "width"),
        same("decoder_layers", "num_layers"),
        same("encoder_layers", "num_encoder_layers"),
        _heads(),
        _both("ffn_dim", "feedforward_width"),
        _positions(),
        choice("activation_function", PLAIN, "feedforward", "gelu"),
        _scale(),
        fixed(norm="layernorm", norm_placement="post_residual", bias="all", position="sinusoidal"),
        says("share_encoder_decoder_embeddings", True),
        says("tie_word_embeddings", True),
        without_effect("num_hidden_layers", "encoder_layerdrop", "decoder_layerdrop", "activation_dropout", "init_std"),
        without_effect("normalize_before", "normalize_embedding", "add_bias_logits", "add_final_layer_norm"),
        without_effect("extra_pos_embeddings", "static_position_embeddings", "is_decoder"),
    ),
    (marian_tensors,),
    constants=_constants,
    aliases=dict.fromkeys(_TIED, "model.shared.weight"),
    ours="encoder_decoder",
)
