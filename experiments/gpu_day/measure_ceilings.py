"""Measures the device's limits: square matrix products in bfloat16 and 8-bit floats, and memory copies."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from timing import spread, time_call

from gptjax.training.hardware import peak_flops_per_device


def measure(sizes: tuple[int, ...] = (4096, 8192, 16384), copied: int = 2**30) -> Iterator[dict]:
    """copied: the number of float32 values that the copy moves."""
    device = jax.devices()[0]
    for dtype in (jnp.bfloat16, jnp.float8_e4m3fn):
        for size in sizes:
            keys = jax.random.split(jax.random.key(0))  # products of zeros are faster because they use less power
            a, b = (jax.random.normal(key, (size, size), jnp.bfloat16).astype(dtype) for key in keys)
            product = jax.jit(lambda a, b: jnp.matmul(a, b.T, preferred_element_type=jnp.bfloat16))
            row = {"what": "product", "dtype": jnp.dtype(dtype).name, "size": size}
            try:
                product(a, b).block_until_ready()
            except Exception as error:
                yield row | {"error": f"not supported: {str(error).splitlines()[0][:200]}"}
                continue
            flops = spread(2.0 * size**3, time_call(product, a, b), "flops_per_second")
            peak = peak_flops_per_device(device.device_kind, "bfloat16") if dtype == jnp.bfloat16 else None
            yield row | flops | {"of_peak": flops["flops_per_second"] / peak if peak else None}
    x = jnp.zeros(copied, jnp.float32)
    seconds = time_call(jax.jit(lambda x: x + 1), x)
    yield {"what": "copy", "size": 4 * copied} | spread(8.0 * copied, seconds, "bytes_per_second")
