"""Normalization of the residual stream, and of queries and keys; float32 statistics and scale in any compute dtype."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from gptjax.model.checks import bias_parts
from gptjax.model.parameters import vector
from gptjax.model.precision import over_rows
from gptjax.settings import ModelSettings


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · scale, over the last axes of x (Zhang & Sennrich 2019, arXiv:1910.07467).

    Gemma's published weights store scale - 1: add one when importing them.
    """

    epsilon: float
    axes: tuple[str, ...] = ("embed",)  # the names and sizes of the axes that are normalized together

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank = len(self.axes)
        scale = vector(self, "scale", dict(zip(self.axes, x.shape[-rank:])), nn.initializers.ones)
        wide = x.astype(jnp.float32).reshape(*x.shape[:-rank], -1)
        inverse_rms = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        normed = wide * inverse_rms * over_rows(scale.reshape(-1), wide.shape)
        return normed.reshape(x.shape).astype(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + ε) · scale [+ bias] (Ba et al. 2016, arXiv:1607.06450)."""

    epsilon: float
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = vector(self, "scale", {"embed": x.shape[-1]}, nn.initializers.ones)
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        inverse_deviation = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.epsilon)
        normed = centred * inverse_deviation * over_rows(scale, x.shape)
        if self.use_bias:
            bias = vector(self, "bias", {"embed": x.shape[-1]})
            normed += over_rows(bias, x.shape)
        return normed.astype(x.dtype)


def make_norm(config: ModelSettings, name: str | None = None) -> nn.Module:
    """The norm that `config.norm` names; LayerNorm has a bias if `config.bias` includes norm."""
    if config.norm == "layernorm":
        return LayerNorm(config.norm_epsilon, use_bias="norm" in bias_parts(config.bias), name=name)
    return RMSNorm(config.norm_epsilon, name=name)
