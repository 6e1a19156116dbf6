"""Converts our parameters to the names and layouts of transformers' modules."""

import numpy as np


def gpt2_names(params):
    """Parameters of a decoder like GPT-2 → those of GPT2LMHeadModel, whose matrices are [in, out]."""
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


NORMS = {"attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"}
SANDWICH = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_post_norm": "post_feedforward_layernorm",
}


def llama_names(params, norms=NORMS):
    """Parameters of a decoder like Llama → those of the modules of Llama, Mistral, Qwen …, whose matrices are [out,
    in].

    Args:
      norms: the names of a block's norms there.
    """
    named = {"model.embed_tokens.weight": params["embedding"], "model.norm.weight": params["final_norm"]["scale"]}
    named["lm_head.weight"] = params["head"].T if "head" in params else params["embedding"]
    for index, layer in enumerate(_layers(params)):
        attention, feedforward = layer["attention"], layer["feedforward"]
        width = attention["query"].shape[0]
        name = f"model.layers.{index}"
        for ours, theirs in norms.items():
            if ours in layer:
                named[f"{name}.{theirs}.weight"] = layer[ours]["scale"]
        for part, ours in (("q", "query"), ("k", "key"), ("v", "value")):
            named[f"{name}.self_attn.{part}_proj.weight"] = attention[ours].reshape(width, -1).T
            if f"{ours}_bias" in attention:
                named[f"{name}.self_attn.{part}_proj.bias"] = attention[f"{ours}_bias"].reshape(-1)
            if f"{ours}_norm" in attention:
                named[f"{name}.self_attn.{part}_norm.weight"] = attention[f"{ours}_norm"]["scale"].reshape(-1)
        named[f"{name}.self_attn.o_proj.weight"] = attention["output"].reshape(-1, width).T
        if "output_bias" in attention:
            named[f"{name}.self_attn.o_proj.bias"] = attention["output_bias"]
        if "router" not in feedforward:
            named |= {f"{name}.mlp.{part}_proj.weight": feedforward[part].T for part in ("gate", "up", "down")}
    return named


def moe_names(params):
    """The same for OLMoE, Qwen3-MoE, Mixtral and GLM-4.5, whose experts are [E, out, in]."""
    named = llama_names(params)
    for index, layer in enumerate(_layers(params)):
        feedforward, name = layer["feedforward"], f"model.layers.{index}.mlp"
        if "router" not in feedforward:
            continue
        named[f"{name}.gate.weight"] = feedforward["router"].T
        both = np.concatenate([feedforward["gate"], feedforward["up"]], axis=2)
        named[f"{name}.experts.gate_up_proj"] = both.transpose(0, 2, 1)
        named[f"{name}.experts.down_proj"] = feedforward["down"].transpose(0, 2, 1)
        if "router_bias" in feedforward:
            named[f"{name}.gate.e_score_correction_bias"] = feedforward["router_bias"]
        for part, matrix in feedforward.get("shared", {}).items():
            named[f"{name}.shared_experts.{part}_proj.weight"] = matrix.T
    return named


def olmo2_names(params):
    """The same for OLMo 2, which has norms only after the branches."""
    return llama_names(params, SANDWICH)


def gemma_names(params):
    """The same for Gemma 2 and 3, which have norms on both sides of a branch and store scales minus one."""
    named = llama_names(params, SANDWICH)
    return {name: array.astype(np.float64) - 1 if "norm" in name else array for name, array in named.items()}


T5GEMMA = {
    "attention_norm": "pre_self_attn_layernorm",
    "attention_post_norm": "post_self_attn_layernorm",
    "cross_attention_norm": "pre_cross_attn_layernorm",
    "cross_attention_post_norm": "post_cross_attn_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_post_norm": "post_feedforward_layernorm",
}


def t5gemma_names(params):
    """The same for T5Gemma's encoder and decoder, which have two embeddings."""
    stacks = {"encoder": params["encoder"] | {"embedding": params["source_embedding"]}, "decoder": params}
    named = {"lm_head.out_proj.weight": params["embedding"]}
    for stack, of_stack in stacks.items():
        of_self = llama_names(of_stack, T5GEMMA)
        del of_self["lm_head.weight"]
        named |= {name.replace("model.", f"model.{stack}."): array for name, array in of_self.items()}
    layers = params["layers"]
    of_cross = llama_names(params | {"layers": layers | {"attention": layers["cross_attention"]}})
    named |= {
        name.replace("model.", "model.decoder.").replace("self_attn", "cross_attn"): array
        for name, array in of_cross.items()
        if "self_attn" in name
    }
    return {name: array.astype(np.float64) - 1 if "norm" in name else array for name, array in named.items()}


def marian_names(params):
    """The same for Marian's encoder and decoder, with one embedding; their position embedding is a table of sines."""
    named = dict.fromkeys(("model.shared.weight", "lm_head.weight"), params["embedding"])
    width = params["embedding"].shape[1]
    angles = np.arange(64)[:, None] / 10_000.0 ** (np.arange(0, width, 2) / width)
    for stack, layers in (("encoder", params["encoder"]["layers"]), ("decoder", params["layers"])):
        named[f"model.{stack}.embed_tokens.weight"] = params["embedding"]
        named[f"model.{stack}.embed_positions.weight"] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        attentions = {"attention": "self_attn", "cross_attention": "encoder_attn"}
        for index in range(len(layers["attention"]["query"])):
            name = f"model.{stack}.layers.{index}"
            for ours, theirs in attentions.items():
                if ours not in layers:
                    continue
                attention = _layer(layers[ours], index)
                for part in ("query", "key", "value"):
                    named[f"{name}.{theirs}.{part[0]}_proj.weight"] = attention[part].reshape(width, -1).T
                    named[f"{name}.{theirs}.{part[0]}_proj.bias"] = attention[f"{part}_bias"].reshape(-1)
                named[f"{name}.{theirs}.out_proj.weight"] = attention["output"].reshape(-1, width).T
                named[f"{name}.{theirs}.out_proj.bias"] = attention["output_bias"]
                named |= _norm(f"{name}.{theirs}_layer_norm", _layer(layers[f"{ours}_post_norm"], index))
            feedforward = _layer(layers["feedforward"], index)
            for ours, theirs in (("up", "fc1"), ("down", "fc2")):
                named[f"{name}.{theirs}.weight"] = feedforward[ours].T
                named[f"{name}.{theirs}.bias"] = feedforward[f"{ours}_bias"]
            named |= _norm(f"{name}.final_layer_norm", _layer(layers["feedforward_post_norm"], index))
    return named


def neox_names(params):
    """The same for GPT-NeoX (Pythia), where the query, key and value of a head are one block of rows."""
    layers = params["layers"]
    named = {
        "gpt_neox.embed_in.weight": params["embedding"],
        "lm_head.weight": params["head"].T,
        **_norm("gpt_neox.final_layer_norm", params["final_norm"]),
    }
    for index in range(len(layers["attention"]["query"])):
        attention, feedforward = _layer(layers["attention"], index), _layer(layers["feedforward"], index)
        width = attention["query"].shape[0]
        name = f"gpt_neox.layers.{index}"
        named |= _norm(f"{name}.input_layernorm", _layer(layers["attention_norm"], index))
        named |= _norm(f"{name}.post_attention_layernorm", _layer(layers["feedforward_norm"], index))
        parts = ("query", "key", "value")
        joined = np.stack([attention[part] for part in parts], axis=2)  # [D, N, 3, H]
        named[f"{name}.attention.query_key_value.weight"] = joined.reshape(width, -1).T
        biases = np.stack([attention[f"{part}_bias"] for part in parts], axis=1)
        named[f"{name}.attention.query_key_value.bias"] = biases.reshape(-1)
        named[f"{name}.attention.dense.weight"] = attention["output"].reshape(-1, width).T
        named[f"{name}.attention.dense.bias"] = attention["output_bias"]
        for ours, theirs in (("up", "dense_h_to_4h"), ("down", "dense_4h_to_h")):
            named[f"{name}.mlp.{theirs}.weight"] = feedforward[ours].T
            named[f"{name}.mlp.{theirs}.bias"] = feedforward[f"{ours}_bias"]
    return named


def phi3_names(params):
    """The same for Phi-3, where query, key and value are one matrix, and gate and up another."""
    named = llama_names(params)
    for index in range(len(params["layers"]["attention"]["query"])):
        name = f"model.layers.{index}"
        for joined, of in (("self_attn.qkv", "qkv"), ("mlp.gate_up", ("gate", "up"))):
            room = joined.partition(".")[0]
            parts = [named.pop(f"{name}.{room}.{part}_proj.weight") for part in of]
            named[f"{name}.{joined}_proj.weight"] = np.concatenate(parts)
    return named


def gpt_oss_names(params):
    """The same for gpt-oss with a single expert, whose gate and up are interleaved; the router has no effect."""
    named = llama_names(params)
    layers = params["layers"]
    for index in range(len(layers["attention"]["query"])):
        name, feedforward = f"model.layers.{index}", _layer(layers["feedforward"], index)
        for part in ("gate", "up", "down"):
            del named[f"{name}.mlp.{part}_proj.weight"]
        joined, biases = (
            np.stack([feedforward[f"gate{end}"], feedforward[f"up{end}"]], axis=-1) for end in ("", "_bias")
        )
        named[f"{name}.mlp.experts.gate_up_proj"] = joined.reshape(1, len(joined), -1)
        named[f"{name}.mlp.experts.gate_up_proj_bias"] = biases.reshape(1, -1)
        named[f"{name}.mlp.experts.down_proj"] = feedforward["down"][None]
        named[f"{name}.mlp.experts.down_proj_bias"] = feedforward["down_bias"][None]
        named[f"{name}.mlp.router.weight"] = np.zeros((1, len(joined)))
        named[f"{name}.mlp.router.bias"] = np.zeros(1)
        named[f"{name}.self_attn.sinks"] = layers["attention"]["sinks"][index]
    return named


def mpt_names(params):
    """The same for MPT, which has no biases, not even in its norms."""
    layers = params["layers"]
    named = {
        "transformer.wte.weight": params["embedding"],
        "transformer.norm_f.weight": params["final_norm"]["scale"],
        "lm_head.weight": params["embedding"],
    }
    for index in range(len(layers["attention"]["query"])):
        attention, feedforward = _layer(layers["attention"], index), _layer(layers["feedforward"], index)
        width = attention["query"].shape[0]
        name = f"transformer.blocks.{index}"
        for ours, theirs in (("attention_norm", "norm_1"), ("feedforward_norm", "norm_2")):
            named[f"{name}.{theirs}.weight"] = layers[ours]["scale"][index]
        parts = [attention[part].reshape(width, -1).T for part in ("query", "key", "value")]
        named[f"{name}.attn.Wqkv.weight"] = np.concatenate(parts)
        named[f"{name}.attn.out_proj.weight"] = attention["output"].reshape(-1, width).T
        named |= {f"{name}.ffn.{part}_proj.weight": feedforward[part].T for part in ("up", "down")}
    return named


def _layers(params):
    """The parameters of each layer, of first layers of another kind before the others."""
    stacks = [params[name] for name in ("first_layers", "layers") if name in params]
    return [_layer(stack, index) for stack in stacks for index in range(len(stack["attention"]["query"]))]


def _norm(name, norm):
    return {f"{name}.weight": norm["scale"], f"{name}.bias": norm["bias"]}


def _layer(tree, index):
    return {name: _layer(leaf, index) if isinstance(leaf, dict) else leaf[index] for name, leaf in tree.items()}
