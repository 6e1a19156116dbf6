"""Measures the attention backends, forward and with the gradient, on whole, windowed and packed sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from timing import spread, time_call
from worker import is_out_of_memory

from gptjax.config import ConfigError
from gptjax.model.attention import attention

#        rows, length, heads, key/value heads, head width: GPT-2 124M, Llama 1B, Llama 3B
SHAPES = ((32, 1024, 12, 12, 64), (16, 2048, 32, 8, 64), (8, 2048, 24, 8, 128), (2, 8192, 24, 8, 128))


def measure(shapes: tuple[tuple[int, ...], ...] = SHAPES, window: int = 512) -> Iterator[dict]:
    """FLOPs are those of the unmasked pairs, 4 · H per pair and head, and 3.5 times as many with the gradient (the
    backward pass has five matrix products and the forward pass two).
    """
    for shape, kind, backend in itertools.product(shapes, ("causal", "windowed", "packed"), ("cudnn", "xla")):
        rows, length, heads, kv_heads, width = shape
        keys = jax.random.split(jax.random.key(0), 3)
        sizes = (heads, kv_heads, kv_heads)
        q, k, v = (jax.random.normal(key, (rows, length, n, width), jnp.bfloat16) for key, n in zip(keys, sizes))
        options = {"backend": backend, "block": min(512, length)}
        seen = length * (length + 1) / 2
        if kind == "windowed":
            options["window"] = window
            seen = window * (window + 1) / 2 + (length - window) * window
        if kind == "packed":  # four documents of equal length
            options["segments_BT"] = jnp.broadcast_to(jnp.arange(length) // (length // 4), (rows, length))
            seen = 4 * (length // 4) * (length // 4 + 1) / 2
        flops = 4.0 * rows * heads * width * seen
        row = {"backend": backend, "kind": kind, "shape": list(shape)}
        try:
            yield row | timed(q, k, v, options, flops)
        except ConfigError as error:
            yield row | {"error": f"not supported: {error}"}
        except Exception as error:  # a kernel that fails must not stop the others
            yield row | {"error": "out of memory" if is_out_of_memory(error) else str(error).splitlines()[0][:200]}


def timed(q, k, v, options: dict, flops: float) -> dict:
    def forward(q, k, v):
        return attention(q, k, v, **options)

    def total(q, k, v):
        return forward(q, k, v).astype(jnp.float32).sum()

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    return spread(flops, time_call(jax.jit(forward), q, k, v), "forward_flops_per_second") | spread(
        3.5 * flops, time_call(both, q, k, v), "flops_per_second"
    )
