"""Normalization of the residual stream, and of queries and keys; float32 statistics and scale in any compute dtype."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.model.checks import bias_parts
from gptjax.model.parameters import vector
from gptjax.model.precision import over_rows
from gptjax.model.rematerialization import from_arguments
from gptjax.settings import ModelSettings


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · scale, over the last axes of x (Zhang & Sennrich 2019, arXiv:1910.07467).

    Gemma's published weights store scale - 1: add one when importing them.

    Attributes:
      axes: the names and sizes of the axes that are normalized together.
    """

    config: ModelSettings
    axes: tuple[str, ...] = ("embed",)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank, epsilon = len(self.axes), self.config.norm_epsilon
        scale = vector(self, "scale", dict(zip(self.axes, x.shape[-rank:])), nn.initializers.ones)

        def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
            wide = x.astype(jnp.float32).reshape(*x.shape[:-rank], -1)
            inverse_rms = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
            scaled = wide * inverse_rms * over_rows(scale.reshape(-1), wide.shape)
            return scaled.reshape(x.shape).astype(x.dtype)

        return from_arguments(normed, self.config)(x, scale)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + ε) · scale [+ bias] (Ba et al. 2016, arXiv:1607.06450)."""

    config: ModelSettings

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        epsilon = self.config.norm_epsilon
        scale = vector(self, "scale", {"embed": x.shape[-1]}, nn.initializers.ones)
        biases = [vector(self, "bias", {"embed": x.shape[-1]})] if "norm" in bias_parts(self.config.bias) else []

        def normed(x: jax.Array, scale: jax.Array, *biases: jax.Array) -> jax.Array:
            wide = x.astype(jnp.float32)
            centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
            inverse_deviation = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)
            scaled = centred * inverse_deviation * over_rows(scale, x.shape)
            return sum((over_rows(bias, x.shape) for bias in biases), scaled).astype(x.dtype)

        return from_arguments(normed, self.config)(x, scale, *biases)


def make_norm(config: ModelSettings, name: str | None = None) -> nn.Module:
    """The norm that `config.norm` names; LayerNorm has a bias if `config.bias` includes norm."""
    return (LayerNorm if config.norm == "layernorm" else RMSNorm)(config, name=name)
