"""The position-wise half of a block: gated (SwiGLU, GeGLU) or plain (GELU, ReLU²)."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.model.initialization import input_init, output_init
from gptjax.model.precision import project

_gelu = functools.partial(jax.nn.gelu, approximate=True)  # the tanh form, GPT-2's

ACTIVATIONS = {
    "swiglu": jax.nn.silu,
    "geglu": _gelu,
    "gelu": _gelu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}
GATED = ("swiglu", "geglu")


class FeedForward(nn.Module):
    """down(activation(up x)), or down(activation(gate x) · up x) where gated.

    GLU variants: Shazeer 2020, arXiv:2002.05202. ReLU²: So et al. 2021, arXiv:2109.08668.
    """

    config: object

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        config = self.config
        width, inner = config.width, config.feedforward_width
        activation = ACTIVATIONS[config.feedforward]

        def linear(name: str, x: jax.Array, init, shape: tuple[int, int]) -> jax.Array:
            weight = self.param(name, init, shape, jnp.float32)
            bias = self.param(f"{name}_bias", nn.initializers.zeros, shape[1:]) if config.bias == "all" else None
            return project(x, weight, bias)

        up_BTF = linear("up", x_BTD, input_init(config), (width, inner))
        if config.feedforward in GATED:
            gate_BTF = linear("gate", x_BTD, input_init(config), (width, inner))
            hidden_BTF = activation(gate_BTF) * up_BTF
        else:
            hidden_BTF = activation(up_BTF)
        return linear("down", hidden_BTF, output_init(config), (inner, width))
