"""Positions of tokens: rotary, learned or sinusoidal.

Rotary embeddings use the half-split layout of the published Llama and Qwen weights, in which feature i is paired with
feature i + H/2. The interleaved layout of the paper is the same function after a permutation of the features.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import ConfigError
from gptjax.settings import ModelSettings


def rope_frequencies(config: ModelSettings, *, local: bool = False) -> np.ndarray:
    """Angle per position [R/2] of rotary embeddings (Su et al. 2021, arXiv:2104.09864), scaled as configured; the first
    R = rope_fraction · H features of a head are rotated.

    Args:
      local: for sliding-window layers, which have their own base if `rope_local_theta` is set (Gemma 3,
        arXiv:2503.19786, section 2). A window is not longer than in training, so it is not scaled.

    `linear` divides every frequency by `rope_factor` (Chen et al. 2023, arXiv:2306.15595). `llama3` divides only those
    whose wavelength is long compared with the original context, and blends in between (Llama 3.1's reference code).
    `yarn` does the same, but blends by feature index (Peng et al. 2023, arXiv:2309.00071). `longrope` divides each
    frequency by its own factor (Ding et al. 2024, arXiv:2402.13753): published models have one list of factors for
    contexts up to `rope_original_positions` and one for longer contexts; a config has the list that fits its context.
    """
    rotated = int(config.head_width * config.rope_fraction)
    if rotated % 2 or not rotated:
        raise ConfigError(
            f"model.head_width = {config.head_width} with model.rope_fraction = {config.rope_fraction}: rotary "
            "positions need an even number of features"
        )
    exponents = np.arange(0, rotated, 2, dtype=np.float64) / rotated
    if local and config.rope_local_theta:
        return (config.rope_local_theta**-exponents).astype(np.float32)
    frequencies = config.rope_theta**-exponents
    if config.rope_scaling == "linear":
        frequencies = frequencies / config.rope_factor
    elif config.rope_scaling == "llama3":
        low, high = config.rope_low_frequency_factor, config.rope_high_frequency_factor
        turns = config.rope_original_positions * frequencies / (2 * math.pi)  # over the original context
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 1: a fast feature, not changed; 0: fully scaled
        frequencies = frequencies * (kept + (1.0 - kept) / config.rope_factor)
    elif config.rope_scaling == "yarn":
        stretched = _yarn_ramp(config, rotated)
        frequencies = frequencies * (1.0 - stretched) + frequencies / config.rope_factor * stretched
    elif config.rope_scaling == "longrope":
        frequencies = frequencies / np.asarray(config.rope_feature_factors, np.float64)
    elif config.rope_scaling != "none":
        raise ConfigError(
            f"model.rope_scaling = {config.rope_scaling!r}: expected one of none, linear, llama3, yarn, longrope"
        )
    return frequencies.astype(np.float32)


def _yarn_ramp(config: ModelSettings, rotated: int) -> np.ndarray:
    """How much each frequency is scaled, from 0 (a fast feature, not changed) to 1 (fully), [R/2]."""

    def feature(turns: float) -> float:
        """The (fractional) index of the feature that makes this many turns over the original context."""
        return (
            rotated / 2 * math.log(config.rope_original_positions / (2 * math.pi * turns)) / math.log(config.rope_theta)
        )

    low, high = feature(config.rope_high_frequency_factor), feature(config.rope_low_frequency_factor)
    if config.rope_truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    return np.clip((np.arange(rotated // 2) - low) / ((high - low) or 0.001), 0.0, 1.0)


def rope_amplitude(config: ModelSettings) -> float:
    """The factor of `yarn` and `longrope` for queries and keys, which keeps attention sharp over a longer context."""
    if config.rope_scaling not in ("yarn", "longrope"):
        return 1.0
    if config.rope_attention_factor:
        return config.rope_attention_factor
    stretch = math.log(max(config.rope_factor, 1.0))
    if config.rope_scaling == "yarn":
        return 1.0 + 0.1 * stretch
    return math.sqrt(1.0 + stretch / math.log(config.rope_original_positions))


def rope_rotation(
    positions_BT: jax.Array, frequencies: np.ndarray, amplitude: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """What `rotate` multiplies each feature and its partner by, for each position; computed once per kind of layer.

    Returns:
      The cosines (c, c) and the sines (-s, s) of the angles of both halves of the features, both [B, T, 1, 2, R/2]
      float32. The cosines are repeated, since XLA:CPU keeps a concatenation in memory. It would compute plain cosines
      anew wherever they are used: for each head, in each layer.
    """
    angles_BT1H = (positions_BT[..., None].astype(jnp.float32) * frequencies)[:, :, None]
    cosine, sine = amplitude * jnp.cos(angles_BT1H), amplitude * jnp.sin(angles_BT1H)
    return jnp.stack([cosine, cosine], axis=-2), jnp.stack([-sine, sine], axis=-2)


def rotate(x_BTNH: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates each pair (i, i + R/2) of the first R features by its position's angle, in float32.

    The two halves become an axis, [2, R/2], so that reversing this axis gives each feature's partner: x is neither
    split nor concatenated, forward or backward.
    """
    cosines, sines = rotation
    width = 2 * cosines.shape[-1]
    if width < x_BTNH.shape[-1]:
        return jnp.concatenate([rotate(x_BTNH[..., :width], rotation), x_BTNH[..., width:]], axis=-1)
    halves = x_BTNH.astype(jnp.float32).reshape(*x_BTNH.shape[:-1], 2, -1)
    turned = halves * cosines + jnp.flip(halves, axis=-2) * sines
    return turned.reshape(x_BTNH.shape).astype(x_BTNH.dtype)


def sinusoidal(positions_BT: jax.Array, width: int) -> jax.Array:
    """Fixed sines, then cosines, wavelengths from 2π to 10,000·2π, [B, T, D] (Vaswani et al. 2017, section 3.5)."""
    if width % 2:
        raise ConfigError(f"model.width = {width}: sinusoidal positions need an even width")
    frequencies = (10_000.0 ** -(np.arange(0, width, 2) / width)).astype(np.float32)
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
