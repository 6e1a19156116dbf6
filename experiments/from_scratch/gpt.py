"""GPT-2 from scratch: parameters as a nested dict, and a pure function from parameters and tokens to logits.

  python experiments/from_scratch/gpt.py             # counts the parameters of the model of 124 million

The dict has the layout of gptjax's own decoder, with the layers stacked on a leading axis, so that both compute the
same logits from the same parameters (tests/experiments/from_scratch/test_gpt.py).
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from attention import attention_layer

Params = dict[str, Any]


def layer_norm(params: Params, x_BTD: jax.Array) -> jax.Array:
    """Each token's features get mean 0 and variance 1, then a learned scale and shift."""
    mean_BT1 = x_BTD.mean(axis=-1, keepdims=True)
    variance_BT1 = x_BTD.var(axis=-1, keepdims=True)
    return (x_BTD - mean_BT1) / jnp.sqrt(variance_BT1 + 1e-5) * params["scale"] + params["bias"]


def gelu(x: jax.Array) -> jax.Array:
    """A smooth ReLU, in the form with tanh that GPT-2 was trained with."""
    return 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)))


def feedforward(params: Params, x_BTD: jax.Array) -> jax.Array:
    """Each token by itself: to four times the width, an activation, and back."""
    return gelu(x_BTD @ params["up"] + params["up_bias"]) @ params["down"] + params["down_bias"]


def block(params: Params, x_BTD: jax.Array) -> jax.Array:
    """Both halves add to the stream x: through these shortcuts, gradients reach the first layers undiminished."""
    x_BTD = x_BTD + attention_layer(params["attention"], layer_norm(params["attention_norm"], x_BTD))
    return x_BTD + feedforward(params["feedforward"], layer_norm(params["feedforward_norm"], x_BTD))


def embed(params: Params, tokens_BT: jax.Array) -> jax.Array:
    """A row of the embedding table for each token, plus a row for its position."""
    return params["embedding"][tokens_BT] + params["positions"][: tokens_BT.shape[1]]


def gpt(params: Params, tokens_BT: jax.Array) -> jax.Array:
    """Logits [B, T, V]: for each token, the scores of all tokens that may follow it."""
    x_BTD = embed(params, tokens_BT)
    num_layers = params["layers"]["feedforward"]["up"].shape[0]
    for layer in range(num_layers):
        x_BTD = block(jax.tree.map(operator.itemgetter(layer), params["layers"]), x_BTD)
    x_BTD = layer_norm(params["final_norm"], x_BTD)
    return x_BTD @ params.get("head", params["embedding"].T)  # without a head, the embedding is used a second time


def init(key: jax.Array, *, vocab: int, positions: int, width: int, layers: int, heads: int) -> Params:
    """Random parameters: matrices with standard deviation 0.02, norms that change nothing, biases of zero."""
    keys = iter(jax.random.split(key, 8))
    head_width, inner = width // heads, 4 * width

    def matrix(*shape: int) -> jax.Array:
        return 0.02 * jax.random.normal(next(keys), shape)

    def norm(*shape: int) -> Params:
        return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}

    attention: Params = {name: matrix(layers, width, heads, head_width) for name in ("query", "key", "value")}
    attention |= {f"{name}_bias": jnp.zeros((layers, heads, head_width)) for name in ("query", "key", "value")}
    attention |= {"output": matrix(layers, heads, head_width, width), "output_bias": jnp.zeros((layers, width))}
    return {
        "embedding": matrix(vocab, width),
        "positions": matrix(positions, width),
        "layers": {
            "attention_norm": norm(layers, width),
            "attention": attention,
            "feedforward_norm": norm(layers, width),
            "feedforward": {
                "up": matrix(layers, width, inner),
                "up_bias": jnp.zeros((layers, inner)),
                "down": matrix(layers, inner, width),
                "down_bias": jnp.zeros((layers, width)),
            },
        },
        "final_norm": norm(width),
    }


GPT2_124M = dict(vocab=50257, positions=1024, width=768, layers=12, heads=12)


def count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def main() -> None:
    # eval_shape computes the shapes of a function's results without computing the results.
    shapes = jax.eval_shape(functools.partial(init, **GPT2_124M), jax.random.key(0))
    print(f"{count(shapes):,} parameters, {4 * count(shapes) / 2**20:.1f} MiB in float32")
    for path, leaf in jax.tree.leaves_with_path(shapes):
        print(f"  {jax.tree_util.keystr(path, simple=True, separator='/'):<40} {leaf.shape}")


if __name__ == "__main__":
    main()
