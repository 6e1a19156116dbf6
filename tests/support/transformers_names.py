"""Our parameters under the names, and in the layouts, of the modules of transformers."""

import numpy as np


def gpt2_names(params):
    """Parameters of a decoder in GPT-2's manner → those of GPT2LMHeadModel, whose matrices are [in, out]."""
    layers = params["layers"]
    named = {
        "transformer.wte.weight": params["embedding"],
        "transformer.wpe.weight": params["positions"],
        **_norm("transformer.ln_f", params["final_norm"]),
    }
    for index in range(len(layers["attention_norm"]["scale"])):
        attention, feedforward = _layer(layers["attention"], index), _layer(layers["feedforward"], index)
        width = attention["query"].shape[0]
        name = f"transformer.h.{index}"
        named |= _norm(f"{name}.ln_1", _layer(layers["attention_norm"], index))
        named |= _norm(f"{name}.ln_2", _layer(layers["feedforward_norm"], index))
        parts = ("query", "key", "value")
        named[f"{name}.attn.c_attn.weight"] = np.concatenate([attention[p].reshape(width, -1) for p in parts], axis=1)
        named[f"{name}.attn.c_attn.bias"] = np.concatenate([attention[f"{p}_bias"].reshape(-1) for p in parts])
        named[f"{name}.attn.c_proj.weight"] = attention["output"].reshape(-1, width)
        named[f"{name}.attn.c_proj.bias"] = attention["output_bias"]
        named |= {f"{name}.mlp.c_fc.weight": feedforward["up"], f"{name}.mlp.c_fc.bias": feedforward["up_bias"]}
        named |= {f"{name}.mlp.c_proj.weight": feedforward["down"], f"{name}.mlp.c_proj.bias": feedforward["down_bias"]}
    return named


def llama_names(params):
    """Parameters of a decoder in Llama's manner → those of Llama's, Mistral's and Qwen's modules: [out, in]."""
    layers = params["layers"]
    named = {"model.embed_tokens.weight": params["embedding"], "model.norm.weight": params["final_norm"]["scale"]}
    named["lm_head.weight"] = params["head"].T if "head" in params else params["embedding"]
    for index in range(len(layers["attention_norm"]["scale"])):
        attention, feedforward = _layer(layers["attention"], index), _layer(layers["feedforward"], index)
        width = attention["query"].shape[0]
        name = f"model.layers.{index}"
        named[f"{name}.input_layernorm.weight"] = layers["attention_norm"]["scale"][index]
        named[f"{name}.post_attention_layernorm.weight"] = layers["feedforward_norm"]["scale"][index]
        for part, ours in (("q", "query"), ("k", "key"), ("v", "value")):
            named[f"{name}.self_attn.{part}_proj.weight"] = attention[ours].reshape(width, -1).T
            if f"{ours}_bias" in attention:
                named[f"{name}.self_attn.{part}_proj.bias"] = attention[f"{ours}_bias"].reshape(-1)
            if f"{ours}_norm" in attention:
                named[f"{name}.self_attn.{part}_norm.weight"] = attention[f"{ours}_norm"]["scale"]
        named[f"{name}.self_attn.o_proj.weight"] = attention["output"].reshape(-1, width).T
        named |= {f"{name}.mlp.{part}_proj.weight": feedforward[part].T for part in ("gate", "up", "down")}
    return named


def phi3_names(params):
    """Likewise of Phi-3's, in which three matrices of attention are one, and two of the feed-forward layer."""
    named = llama_names(params)
    for index in range(len(params["layers"]["attention_norm"]["scale"])):
        name = f"model.layers.{index}"
        for joined, of in (("self_attn.qkv", "qkv"), ("mlp.gate_up", ("gate", "up"))):
            room = joined.partition(".")[0]
            parts = [named.pop(f"{name}.{room}.{part}_proj.weight") for part in of]
            named[f"{name}.{joined}_proj.weight"] = np.concatenate(parts)
    return named


def _norm(name, norm):
    return {f"{name}.weight": norm["scale"], f"{name}.bias": norm["bias"]}


def _layer(tree, index):
    return {name: _layer(leaf, index) if isinstance(leaf, dict) else leaf[index] for name, leaf in tree.items()}
