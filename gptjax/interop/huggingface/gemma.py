"""Gemma 2, Gemma 3 and T5Gemma: norms on both sides of a branch, whose scales are stored minus one."""

from __future__ import annotations

from typing import Any

from gptjax.interop.huggingface.equivalence import whole_pattern
from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.keys import Keys
from gptjax.interop.huggingface.llama import (
    ATTENTION_BIAS,
    SANDWICH,
    TIED,
    attention_tensors,
    every_nth_full,
    feedforward_tensors,
    llama_tensors,
    norm_tensors,
    period_of,
    sizes,
    types_of_layers,
    windows_by_type,
)
from gptjax.interop.huggingface.rope import read_rope, rope, written_rope
from gptjax.interop.huggingface.rules import (
    Rule,
    biases,
    fixed,
    head_width,
    optional,
    same,
    says,
    tidy,
    without_effect,
)
from gptjax.interop.huggingface.tensors import Tensor
from gptjax.settings import ModelSettings


def gemma_tensors(model: ModelSettings) -> list[Tensor]:
    return llama_tensors(model, SANDWICH, minus=1.0)


def _attention_scale() -> Rule:
    """query_pre_attn_scalar: one over the square of the factor."""

    def read(keys: Keys) -> dict[str, Any]:
        scalar = keys.get("query_pre_attn_scalar", float, 256.0)
        if scalar <= 0:
            raise keys.error("query_pre_attn_scalar", scalar, "positive")
        return {"attention_scale": scalar**-0.5}

    return Rule(
        lambda model: {"query_pre_attn_scalar": tidy((model.attention_scale or model.head_width**-0.5) ** -2)}, read
    )


# Embeddings are multiplied by the square root of the width, which no key says.
_EMBEDDING = Rule(lambda model: {}, lambda keys: {"embedding_multiplier": float(keys.get("hidden_size", int)) ** 0.5})
_COMMON = (
    *sizes(tied=True, activation="hidden_activation"),
    head_width(256),
    _attention_scale(),
    _EMBEDDING,
    fixed(norm_placement="sandwich"),
    biases(**ATTENTION_BIAS),
    without_effect("hidden_act", "cache_implementation"),  # the first is an older name of hidden_activation
)


def _rope_of_gemma3() -> Rule:
    """Layers with a window have a base of their own; their positions are not stretched."""

    def write(model: ModelSettings) -> dict[str, Any]:
        full, local = written_rope(model), model.rope_local_theta or model.rope_theta
        scaling = {name: value for name, value in full.items() if name != "rope_theta"}
        return {
            "rope_theta": model.rope_theta,
            "rope_local_base_freq": local,
            "rope_scaling": None if model.rope_scaling == "none" else scaling,
            "rope_parameters": {
                "full_attention": full,
                "sliding_attention": {"rope_type": "default", "rope_theta": local},
            },
        }

    def read(keys: Keys) -> dict[str, Any]:
        theta, local = keys.get("rope_theta", float, 1e6), keys.get("rope_local_base_freq", float, 1e4)
        new, old = keys.inside("rope_parameters"), keys.inside("rope_scaling")
        full = new.inside("full_attention")
        settings = read_rope(full if full.content else old, theta)
        of_windows = read_rope(new.inside("sliding_attention"), local, ())
        layers = keys.get("num_hidden_layers", int)
        if "sliding_attention" in types_of_layers(keys, layers, every_nth_full(6)(keys, layers)):
            settings["rope_local_theta"] = of_windows["rope_theta"]
        return settings

    return Rule(write, read)


def _period() -> Rule:
    """sliding_window_pattern, which transformers had before layer_types, and which mlx-lm reads."""

    def write(model: ModelSettings) -> dict[str, Any]:
        period = period_of(windows_by_type(every_nth_full(6), 4096).write(model)["layer_types"])
        return {"sliding_window_pattern": period} if period else {}

    return Rule(write, lambda keys: {})


GEMMA2 = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    "gemma2",
    (
        *_COMMON,
        rope(),
        optional("attn_logit_softcapping", "attention_softcap", 50.0),
        optional("final_logit_softcapping", "logit_softcap", 30.0),
        windows_by_type(every_nth_full(2), 4096),
        says("use_bidirectional_attention", False),
    ),
    (gemma_tensors,),
    aliases=TIED,
)
GEMMA3 = Family(
    "gemma3",
    "Gemma3ForCausalLM",
    "gemma3_text",
    (
        *_COMMON,
        fixed(qk_norm=True),
        _rope_of_gemma3(),
        optional("attn_logit_softcapping", "attention_softcap"),
        optional("final_logit_softcapping", "logit_softcap"),
        windows_by_type(every_nth_full(6), 4096),
        _period(),
        says("use_bidirectional_attention", False),
    ),
    (gemma_tensors,),
    aliases=TIED,
)


# --- T5Gemma: an encoder and a decoder of Gemma 2's layers ------------------------------------------------------------

_T5GEMMA_NORMS = {
    "attention_norm": "pre_self_attn_layernorm",
    "attention_post_norm": "post_self_attn_layernorm",
    "cross_attention_norm": "pre_cross_attn_layernorm",
    "cross_attention_post_norm": "post_cross_attn_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_post_norm": "post_feedforward_layernorm",
}
# Keys of the encoder that may differ from the decoder's, under the names that the rules give them.
_OF_ENCODER = {
    "num_hidden_layers": "encoder_num_hidden_layers",
    "vocab_size": "encoder_vocab_size",
    "max_position_embeddings": "encoder_max_position_embeddings",
}
_MAY_DIFFER = {*_OF_ENCODER, "is_decoder", "layer_types", "cross_attention_hidden_size", "use_cache", "_name_or_path"}


def t5gemma_tensors(model: ModelSettings) -> list[Tensor]:
    inside, minus = [], 1.0
    for side, stack, table, norm in (
        ("encoder", "encoder/layers", "source_embedding", "encoder/final_norm"),
        ("decoder", "layers", "embedding", "final_norm"),
    ):
        tensors = [
            Tensor("model.embed_tokens.weight", table),
            Tensor("model.norm.weight", f"{norm}/scale", minus=minus),
            *norm_tensors(stack, _T5GEMMA_NORMS, minus),
            *attention_tensors(stack, minus=minus),
            *attention_tensors(stack, "cross_attention", "cross_attn", minus=minus),
            *feedforward_tensors(stack),
        ]
        inside += [(side, tensor) for tensor in tensors]
    renamed = [
        Tensor(tensor.name.replace("model.", f"model.{side}.", 1), tensor.path, minus=tensor.minus)
        for side, tensor in inside
    ]
    return [*renamed, Tensor("lm_head.out_proj.weight", "head")]


def _t5gemma_written(model: ModelSettings, keys: dict[str, Any]) -> dict[str, Any]:
    of_encoder = {name: keys[flat] for name, flat in _OF_ENCODER.items()}
    both = {name: value for name, value in keys.items() if name not in _OF_ENCODER.values()}
    types = ["full_attention"] * model.num_encoder_layers
    encoder = both | of_encoder | {"is_decoder": False, "model_type": "t5_gemma_module", "layer_types": types}
    decoder = both | {"is_decoder": True, "model_type": "t5_gemma_module"}
    decoder["cross_attention_hidden_size"] = model.width
    top = {name: keys[name] for name in ("vocab_size", "tie_word_embeddings")}
    return {"is_encoder_decoder": True, "encoder": encoder, "decoder": decoder, **top}


def _t5gemma_read(keys: Keys) -> Keys:
    encoder, decoder = keys.inside("encoder").content, keys.inside("decoder").content
    for name in sorted((encoder.keys() | decoder.keys()) - _MAY_DIFFER):
        if encoder.get(name) != decoder.get(name):
            raise keys.error(f"encoder.{name}", encoder.get(name), f"that of the decoder, {decoder.get(name)!r}")
    flat = {flat: encoder.get(name) for name, flat in _OF_ENCODER.items()}
    tied = {name: keys.content[name] for name in ("tie_word_embeddings",) if name in keys.content}
    return Keys(dict(decoder) | flat | tied, keys.source)


def _no_windows() -> Rule:
    """A window of T5Gemma's encoder reaches one token further on each side than ours, so contexts must be shorter."""

    def read(keys: Keys) -> dict[str, Any]:
        settings = windows_by_type(every_nth_full(2), 4096).read(keys)
        if not settings["window"]:
            return settings
        limits = {}
        for theirs, ours in (
            ("max_position_embeddings", "max_positions"),
            ("encoder_max_position_embeddings", "max_source_positions"),
        ):
            limits[ours] = min(settings["window"], keys.get(theirs, int))
        keys.notes.append(f"contexts are limited to sliding_window = {settings['window']:,} tokens")
        return {"window": 0, "window_pattern": "L", **limits}

    def write(model: ModelSettings) -> dict[str, Any]:
        longest = max(model.max_positions, model.max_source_positions)
        return {"sliding_window": longest, "layer_types": ["full_attention" for _ in whole_pattern(model)]}

    return Rule(write, read)


T5GEMMA = Family(
    "t5gemma",
    "T5GemmaForConditionalGeneration",
    "t5gemma",
    (
        *_COMMON,
        rope(),
        same("encoder_num_hidden_layers", "num_encoder_layers"),
        same("encoder_vocab_size", "source_vocab_size"),
        same("encoder_max_position_embeddings", "max_source_positions"),
        fixed(shared_embeddings=False),
        optional("attn_logit_softcapping", "attention_softcap", 50.0),
        optional("final_logit_softcapping", "logit_softcap", 30.0),
        _no_windows(),
        without_effect("is_decoder", "cross_attention_hidden_size"),
    ),
    (t5gemma_tensors,),
    aliases={"lm_head.out_proj.weight": "model.decoder.embed_tokens.weight"},
    nested=(_t5gemma_written, _t5gemma_read),
    ours="encoder_decoder",
)
