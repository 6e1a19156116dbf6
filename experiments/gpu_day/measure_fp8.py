"""Compares a model's matrix products in 8-bit floats, including the scaling by the largest value, with bfloat16.

gptjax trains in float32 and bfloat16; whether 8-bit products would pay is what these rows say.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from timing import spread, time_call

from gptjax.config import ConfigError, default, validate

LARGEST = 448.0  # the largest float8_e4m3fn
#        tokens, width, feed-forward width: of the 124M, 1B and 3B shapes at 16,384 tokens
SHAPES = ((16_384, 768, 3072), (16_384, 2048, 8192), (16_384, 3072, 8192))


def scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns x as (8-bit values, their scale)."""
    scale = jnp.max(jnp.abs(x)).astype(jnp.float32) / LARGEST
    return (x / scale).astype(jnp.float8_e4m3fn), scale


@jax.jit
def product_bfloat16(x, w):
    return jnp.matmul(x, w, preferred_element_type=jnp.bfloat16)


@jax.jit
def product_fp8(x, w):
    (x8, x_scale), (w8, w_scale) = scaled(x), scaled(w)
    return (jnp.matmul(x8, w8, preferred_element_type=jnp.float32) * (x_scale * w_scale)).astype(jnp.bfloat16)


def measure(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Iterator[dict]:
    config = default()
    config.model.dtype = "float8_e4m3fn"
    try:
        validate(config)
    except ConfigError as error:
        yield {"what": "training in float8_e4m3fn", "error": f"not supported: {error}"}
    for tokens, width, inner in shapes:
        keys = jax.random.split(jax.random.key(0))
        x = jax.random.normal(keys[0], (tokens, width), jnp.bfloat16)
        w = jax.random.normal(keys[1], (width, inner), jnp.bfloat16)
        exact = product_bfloat16(x, w).astype(jnp.float32)
        for name, product in (("bfloat16", product_bfloat16), ("float8_e4m3fn", product_fp8)):
            error = jnp.linalg.norm(product(x, w).astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
            row = {"what": "product", "dtype": name, "shape": [tokens, width, inner], "error_norm": float(error)}
            yield row | spread(2.0 * tokens * width * inner, time_call(product, x, w), "flops_per_second")
