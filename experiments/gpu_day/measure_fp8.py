"""Compares the model's matrix products in 8-bit floats (`model.matmul = "fp8"`), scaling included, with bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from timing import spread, time_call

from gptjax.model.precision import project

#        tokens, width, feed-forward width: of the 124M, 1B and 3B shapes at 16,384 tokens
SHAPES = ((16_384, 768, 3072), (16_384, 2048, 8192), (16_384, 3072, 8192))


@jax.jit
def product_bfloat16(x, w):
    return project(x[None], w)[0]


@jax.jit
def product_fp8(x, w):
    return project(x[None], w, matmul="fp8")[0]


def measure(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Iterator[dict]:
    for tokens, width, inner in shapes:
        keys = jax.random.split(jax.random.key(0))
        x = jax.random.normal(keys[0], (tokens, width), jnp.bfloat16)
        w = jax.random.normal(keys[1], (width, inner), jnp.bfloat16)
        exact = product_bfloat16(x, w).astype(jnp.float32)
        for name, product in (("bfloat16", product_bfloat16), ("float8_e4m3fn", product_fp8)):
            error = jnp.linalg.norm(product(x, w).astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
            row = {"what": "product", "dtype": name, "shape": [tokens, width, inner], "error_norm": float(error)}
            yield row | spread(2.0 * tokens * width * inner, time_call(product, x, w), "flops_per_second")
