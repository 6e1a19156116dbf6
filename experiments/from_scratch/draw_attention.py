"""Draws the attention weights of a trained run, computed by attention.py and gpt.py.

  python experiments/from_scratch/draw_attention.py --workdir=runs/verdict_small --text='I had always thought Jack'

The run has the architecture of gpt.py, as those of verdict.py do. Each panel is a head of one layer. A row is a token,
and the darkest place in it is the token that it looks at most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from attention import causal_weights
from gpt import Params, block, embed, layer_norm

from gptjax import tokenizer as tokenizers
from gptjax.model.parameters import unstack_layers
from gptjax.training.checkpoints.loading import load_for_inference


def weights_of(params: Params, num_layers: int, layer: int, tokens: list[int]) -> jax.Array:
    """The attention weights [N, T, T] of the heads of a layer, counted from 0."""
    x_BTD = embed(params, jnp.asarray([tokens]))
    layers = unstack_layers(params["layers"], num_layers)
    for before in layers[:layer]:
        x_BTD = block(before, x_BTD)
    x_TD = layer_norm(layers[layer]["attention_norm"], x_BTD)[0]
    attention = layers[layer]["attention"]
    q_TNH, k_TNH = (
        jnp.einsum("TD,DNH->TNH", x_TD, attention[name]) + attention.get(f"{name}_bias", 0.0)
        for name in ("query", "key")
    )
    return jax.vmap(causal_weights, in_axes=1)(q_TNH, k_TNH)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--text", default="I had always thought Jack Gisburn rather a cheap genius")
    parser.add_argument("--layer", type=int, default=-1, help="counted from 0; -1: the last")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("attention.png"))
    options = parser.parse_args()
    params, config, metadata = load_for_inference(options.workdir, "best")
    tokenizer = tokenizers.load(options.workdir)
    tokens = [metadata["fingerprint"].get("begin_id", tokenizer.eos_id), *tokenizer.encode(options.text)]
    names = ["begin", *(tokenizer.decode([token]) for token in tokens[1:])]
    num_layers = config.model.num_layers
    weights_NTT = weights_of(params, num_layers, options.layer % num_layers, tokens)
    figure, panels = plt.subplots(1, len(weights_NTT), figsize=(3 * len(weights_NTT), 3.3), squeeze=False)
    for number, (panel, weights_TT) in enumerate(zip(panels[0], weights_NTT)):
        panel.imshow(weights_TT / weights_TT.max(axis=1, keepdims=True), cmap="Blues", vmin=0)
        panel.set_title(f"head {number}", fontsize=9)
        panel.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        panel.set_yticks(range(len(names)), names if number == 0 else [], fontsize=6)
    figure.tight_layout()
    figure.savefig(options.output, dpi=80)


if __name__ == "__main__":
    main()
