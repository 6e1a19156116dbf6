"""GPT-2, GPT-NeoX (Pythia) and MPT, whose query, key and value are one matrix."""

from __future__ import annotations

from typing import Any

from gptjax.config import ConfigError
from gptjax.interop.huggingface.family import Family
from gptjax.interop.huggingface.keys import Keys
from gptjax.interop.huggingface.rope import rope
from gptjax.interop.huggingface.rules import PLAIN, Rule, choice, fixed, same, says, without_effect
from gptjax.interop.huggingface.tensors import Tensor
from gptjax.settings import ModelSettings

QKV = ("query", "key", "value")


def _norms(name: str, path: str) -> list[Tensor]:
    return [Tensor(f"{name}.weight", f"{path}/scale"), Tensor(f"{name}.bias", f"{path}/bias")]


def gpt2_tensors(model: ModelSettings) -> list[Tensor]:
    """Matrices are [in, out]."""
    name, attention, mlp = "transformer.h.{layer}", "layers/attention", "layers/feedforward"
    tensors = [
        Tensor("transformer.wte.weight", "embedding"),
        Tensor("transformer.wpe.weight", "positions"),
        Tensor("lm_head.weight", "head"),
        *_norms("transformer.ln_f", "final_norm"),
        *_norms(f"{name}.ln_1", "layers/attention_norm"),
        *_norms(f"{name}.ln_2", "layers/feedforward_norm"),
        Tensor(f"{name}.attn.c_proj.weight", f"{attention}/output", order="in,out"),
        Tensor(f"{name}.attn.c_proj.bias", f"{attention}/output_bias"),
    ]
    for part in QKV:
        tensors.append(Tensor(f"{name}.attn.c_attn.weight", f"{attention}/{part}", order="in,out", parts=QKV))
        biases = tuple(f"{each}_bias" for each in QKV)
        tensors.append(Tensor(f"{name}.attn.c_attn.bias", f"{attention}/{part}_bias", parts=biases))
    for ours, theirs in (("up", "c_fc"), ("down", "c_proj")):
        tensors.append(Tensor(f"{name}.mlp.{theirs}.weight", f"{mlp}/{ours}", order="in,out"))
        tensors.append(Tensor(f"{name}.mlp.{theirs}.bias", f"{mlp}/{ours}_bias"))
    return tensors


def neox_tensors(model: ModelSettings) -> list[Tensor]:
    """The query, key and value of a head are one block of rows."""
    name, attention, mlp = "gpt_neox.layers.{layer}", "layers/attention", "layers/feedforward"
    tensors = [
        Tensor("gpt_neox.embed_in.weight", "embedding"),
        Tensor("embed_out.weight", "head"),
        *_norms("gpt_neox.final_layer_norm", "final_norm"),
        *_norms(f"{name}.input_layernorm", "layers/attention_norm"),
        *_norms(f"{name}.post_attention_layernorm", "layers/feedforward_norm"),
        Tensor(f"{name}.attention.dense.weight", f"{attention}/output"),
        Tensor(f"{name}.attention.dense.bias", f"{attention}/output_bias"),
    ]
    for part in QKV:
        for end, kind in (("", "weight"), ("_bias", "bias")):
            parts = tuple(f"{each}{end}" for each in QKV)
            there = f"{name}.attention.query_key_value.{kind}"
            tensors.append(Tensor(there, f"{attention}/{part}{end}", parts=parts, interleaved=True))
    for ours, theirs in (("up", "dense_h_to_4h"), ("down", "dense_4h_to_h")):
        tensors.append(Tensor(f"{name}.mlp.{theirs}.weight", f"{mlp}/{ours}"))
        tensors.append(Tensor(f"{name}.mlp.{theirs}.bias", f"{mlp}/{ours}_bias"))
    return tensors


def mpt_tensors(model: ModelSettings) -> list[Tensor]:
    """There are no biases, not even in norms."""
    name, attention, mlp = "transformer.blocks.{layer}", "layers/attention", "layers/feedforward"
    return [
        Tensor("transformer.wte.weight", "embedding"),
        Tensor("transformer.norm_f.weight", "final_norm/scale"),
        Tensor(f"{name}.norm_1.weight", "layers/attention_norm/scale"),
        Tensor(f"{name}.norm_2.weight", "layers/feedforward_norm/scale"),
        *(Tensor(f"{name}.attn.Wqkv.weight", f"{attention}/{part}", parts=QKV) for part in QKV),
        Tensor(f"{name}.attn.out_proj.weight", f"{attention}/output"),
        *(Tensor(f"{name}.ffn.{part}_proj.weight", f"{mlp}/{part}") for part in ("up", "down")),
    ]


def _heads(heads: str, width: str) -> Rule:
    """All heads have keys and values, and share the width."""

    def read(keys: Keys) -> dict[str, Any]:
        count, whole = keys.get(heads, int), keys.get(width, int)
        if count < 1 or whole % count:
            raise keys.error(heads, count, f"a divisor of {width} = {whole}")
        return {"num_heads": count, "num_kv_heads": count, "head_width": whole // count}

    return Rule(lambda model: {heads: model.num_heads}, read)


def _inner_of_gpt2() -> Rule:
    def read(keys: Keys) -> dict[str, Any]:
        return same("n_inner", "feedforward_width", 4 * keys.get("n_embd", int)).read(keys)

    return Rule(lambda model: {"n_inner": model.feedforward_width}, read)


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    "gpt2",
    (
        same("vocab_size", "vocab_size"),
        same("n_embd", "width"),
        same("n_layer", "num_layers"),
        _heads("n_head", "n_embd"),
        _inner_of_gpt2(),
        same("n_positions", "max_positions"),
        same("layer_norm_epsilon", "norm_epsilon", 1e-5),
        choice("activation_function", PLAIN, "feedforward", "gelu_new"),
        same("tie_word_embeddings", "tied_embeddings", True),
        fixed(norm="layernorm", bias="all", position="learned"),
        says("scale_attn_weights", True),
        says("scale_attn_by_inverse_layer_idx", False),
        Rule(lambda model: {"n_ctx": model.max_positions}, lambda keys: {}),  # repeats n_positions; mlx-lm needs it
        without_effect("n_ctx", "reorder_and_upcast_attn", "summary_activation", "summary_first_dropout"),
        without_effect("summary_proj_to_labels", "summary_type", "summary_use_proj"),
    ),
    (gpt2_tensors,),
    prefix="transformer.",
    aliases={"lm_head.weight": "transformer.wte.weight"},
    ignored=r"h\.\d+\.attn\.(bias|masked_bias)",
)


def _neox_positions() -> Rule:
    """The keys of the first GPT-NeoX are rotary_emb_base and rotary_pct; transformers 4 reads no others."""
    newer = rope(partial=0.25, scalings=())

    def write(model: ModelSettings) -> dict[str, Any]:
        return newer.write(model) | {"rotary_emb_base": model.rope_theta, "rotary_pct": model.rope_fraction}

    def read(keys: Keys) -> dict[str, Any]:
        base, share = keys.get("rotary_emb_base", float, None), keys.get("rotary_pct", float, None)
        older = {"rope_theta": base, "partial_rotary_factor": share}
        both = Keys(
            {name: value for name, value in older.items() if value is not None} | dict(keys.content), keys.source
        )
        settings = newer.read(both)
        keys.read |= both.read
        if base not in (None, settings["rope_theta"]) or share not in (None, settings["rope_fraction"]):
            raise ConfigError(f"{keys.source}: rotary_emb_base or rotary_pct disagrees with the newer keys")
        return settings

    return Rule(write, read)


GPT_NEOX = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    "gpt_neox",
    (
        same("vocab_size", "vocab_size"),
        same("hidden_size", "width"),
        same("num_hidden_layers", "num_layers"),
        _heads("num_attention_heads", "hidden_size"),
        same("intermediate_size", "feedforward_width"),
        same("max_position_embeddings", "max_positions"),
        same("layer_norm_eps", "norm_epsilon", 1e-5),
        choice("hidden_act", PLAIN, "feedforward", "gelu"),
        same("tie_word_embeddings", "tied_embeddings", False),
        same("use_parallel_residual", "parallel_residual", True),
        _neox_positions(),
        fixed(norm="layernorm", bias="all"),
        says("attention_bias", True),
    ),
    (neox_tensors,),
    prefix="gpt_neox.",
    aliases={"lm_head.weight": "embed_out.weight", "embed_out.weight": "gpt_neox.embed_in.weight"},
    ignored=r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
)


def _mpt_attention() -> Rule:
    demanded = {"alibi": True, "alibi_bias_max": 8, "qk_ln": False, "clip_qkv": None, "prefix_lm": False}

    def read(keys: Keys) -> dict[str, Any]:
        inner = keys.inside("attn_config")
        for name, value in demanded.items():
            says(name, value).read(inner)
        return {"attention_scale": inner.get("softmax_scale", float, 0.0)}

    return Rule(lambda model: {"attn_config": demanded | {"softmax_scale": model.attention_scale or None}}, read)


def _four_times() -> Rule:
    """transformers makes the inner layer four times as wide, whatever expansion_ratio says."""

    def read(keys: Keys) -> dict[str, Any]:
        says("expansion_ratio", 4).read(keys)
        return {"feedforward_width": 4 * keys.get("d_model", int)}

    return Rule(lambda model: {"expansion_ratio": 4}, read)


MPT = Family(
    "mpt",
    "MptForCausalLM",
    "mpt",
    (
        same("vocab_size", "vocab_size"),
        same("d_model", "width"),
        same("n_layers", "num_layers"),
        _heads("n_heads", "d_model"),
        _four_times(),
        same("max_seq_len", "max_positions"),
        same("layer_norm_epsilon", "norm_epsilon", 1e-5),
        _mpt_attention(),
        fixed(norm="layernorm", position="alibi", feedforward="gelu_exact"),
        says("tie_word_embeddings", True),
        says("no_bias", True),
        says("norm_type", "low_precision_layernorm"),
        says("logit_scale", None),
        without_effect("embedding_fraction", "emb_pdrop", "init_device", "learned_pos_emb", "verbose", "init_config"),
    ),
    (mpt_tensors,),
    prefix="transformer.",
    aliases={"lm_head.weight": "transformer.wte.weight"},
)
