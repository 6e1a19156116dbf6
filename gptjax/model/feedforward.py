"""The position-wise half of a block: gated (SwiGLU, GeGLU), plain (GELU, ReLU, ReLU²), or a user's function.

`model.feedforward='my_ideas:squash'` takes the function `squash` of my_ideas.py in the current folder, or of any
installed module:

    def squash(up_BTF): return jnp.tanh(up_BTF)                         # plain
    def gated(gate_BTF, up_BTF): return jax.nn.relu(gate_BTF) * up_BTF  # two arguments: a third matrix makes the gate

The function maps one or two arrays to an array of the same shape and type, and treats every position alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.config import ConfigError
from gptjax.config.named_functions import called, named_function, num_arguments
from gptjax.model.checks import bias_parts
from gptjax.model.initialization import input_init, output_init
from gptjax.model.lora import linear
from gptjax.model.parameters import Axes
from gptjax.model.rematerialization import from_arguments
from gptjax.settings import ModelSettings

_gelu = functools.partial(jax.nn.gelu, approximate=True)  # the tanh form, GPT-2's
_gelu_exact = functools.partial(jax.nn.gelu, approximate=False)  # x Φ(x), Pythia's


def _swiglu_clamped(gate: jax.Array, up: jax.Array) -> jax.Array:
    """The gated activation of gpt-oss with its constants: inputs are clamped, and one is added to the second factor."""
    gate, up = jnp.minimum(gate, 7.0), jnp.clip(up, -7.0, 7.0)
    return gate * jax.nn.sigmoid(1.702 * gate) * (up + 1.0)


PLAIN: dict[str, Callable[..., jax.Array]] = {
    "gelu": _gelu,
    "gelu_exact": _gelu_exact,
    "relu": jax.nn.relu,
    "relu2": lambda up: jnp.square(jax.nn.relu(up)),
}

GATED: dict[str, Callable[..., jax.Array]] = {
    "swiglu": lambda gate, up: jax.nn.silu(gate) * up,
    "swiglu_clamped": _swiglu_clamped,
    "geglu": lambda gate, up: _gelu(gate) * up,
    "geglu_exact": lambda gate, up: _gelu_exact(gate) * up,
}
ACTIVATIONS = PLAIN | GATED


def activation_of(name: str) -> tuple[Callable[..., jax.Array], bool]:
    """The activation that `model.feedforward = name` names, and whether its first argument is a gate.

    Raises:
      ConfigError: there is no such function, or it does not return an array of its argument's shape and type.
    """
    if name in ACTIVATIONS:
        return ACTIVATIONS[name], name in GATED
    function = named_function("model.feedforward", name, takes=(1, 2))
    arguments = [jax.ShapeDtypeStruct((1, 2, 8), jnp.float32)] * num_arguments(function)
    made = called("model.feedforward", name, lambda: jax.eval_shape(function, *arguments))
    if getattr(made, "shape", None) != (1, 2, 8) or made.dtype != jnp.float32:
        raise ConfigError(
            f"model.feedforward = {name!r}: must map float32 [1, 2, 8] to the same shape and type, but returns {made}"
        )
    return function, len(arguments) == 2


def is_gated(name: str) -> bool:
    """Whether a third matrix makes a gate. Raises ConfigError as `activation_of` does."""
    return activation_of(name)[1]


class FeedForward(nn.Module):
    """down(activation(up x)) or, if gated, down(activation(gate x, up x)).

    GLU variants: Shazeer 2020, arXiv:2002.05202. ReLU²: So et al. 2021, arXiv:2109.08668.
    """

    config: ModelSettings

    @nn.compact
    def __call__(self, x_BTD: jax.Array, dropout_keys_B: jax.Array | None = None) -> jax.Array:
        """Returns [B, T, D]. dropout_keys_B: for the dropout of adapters."""
        config = self.config
        width, inner = {"embed": config.width}, {"mlp": config.feedforward_width}
        activation, gated = activation_of(config.feedforward)

        has_bias = "feedforward" in bias_parts(config.bias)

        def multiplied(
            name: str, x: jax.Array, init: nn.initializers.Initializer, inputs: Axes, outputs: Axes
        ) -> jax.Array:
            return linear(self, name, x, inputs, outputs, init, has_bias=has_bias, dropout_keys_B=dropout_keys_B)

        up_BTF = multiplied("up", x_BTD, input_init(config), width, inner)
        gate = [multiplied("gate", x_BTD, input_init(config), width, inner)] if gated else []
        # XLA:GPU cannot compile an 8-bit product with a GELU whose argument and result are both saved.
        if not (config.matmul == "fp8" and config.feedforward.startswith(("gelu", "geglu"))):
            activation = from_arguments(activation, config)
        hidden_BTF = activation(*gate, up_BTF)
        return multiplied("down", hidden_BTF, output_init(config), inner, width)
