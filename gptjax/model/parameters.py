"""Parameters as a tree: made, counted, taken apart."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnums=0)
def init_params(config_model, key: jax.Array) -> dict:
    """Fresh float32 parameters of `Decoder(config_model)`; the same for scanned and unrolled layers."""
    from gptjax.model.decoder import Decoder

    return Decoder(config_model).init(key, jnp.zeros((1, 2), jnp.int32), method="hidden")["params"]


def count_parameters(config_model) -> int:
    """How many parameters the model has; nothing is allocated."""
    shapes = jax.eval_shape(functools.partial(init_params, config_model), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def head_DV(params: dict) -> jax.Array:
    """The output matrix [D, V]: the head, or the embedding where they are tied."""
    return params["head"] if "head" in params else params["embedding"].T


def unstack_layers(layers, num_layers: int) -> list[dict]:
    """Per-layer dicts of the stacked tree `params['layers']`; a list passes through (unstack once, before a loop)."""
    if isinstance(layers, list | tuple):
        return list(layers)
    return [jax.tree.map(lambda x: x[index], layers) for index in range(num_layers)]
