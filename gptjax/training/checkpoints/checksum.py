"""A checksum per array, the same on any mesh, which verifies that a restored array equals the saved one.

Orbax's storage does not verify this: only the indices of a checkpoint's files have checksums. A flipped bit in the data
would silently change a parameter, and a resharded restore could misplace a shard. The sums are computed on the devices
that hold the arrays, at the speed of reading them once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp

_TOGETHER = 2**27  # bytes


def checksums(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """Name → sum modulo 2³² of the array's bits, each element weighted by an odd number drawn from its index.

    Addition modulo 2³² does not depend on order, so neither sharding nor the number of processes changes the value. A
    single changed bit always changes it, since an odd weight has an inverse; swapped elements are missed with a
    probability of 1 in 2³².

    XLA on the CPU writes the weighted elements before it adds them. Large arrays therefore have their turns, so that
    there is never a second copy of all of them.
    """
    sums: dict[str, int] = {}
    for group in _groups(arrays):
        sums |= fetched(checksums_on_device(group))
    return sums


def _groups(arrays: Mapping[str, jax.Array]) -> Iterator[dict[str, jax.Array]]:
    """The arrays in groups of at most _TOGETHER bytes, or of one array."""
    group: dict[str, jax.Array] = {}
    for name, array in arrays.items():
        if group and sum(each.nbytes for each in group.values()) + array.nbytes > _TOGETHER:
            yield group
            group = {}
        group[name] = array
    if group:
        yield group


@jax.jit
def checksums_on_device(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Like `checksums`, as uint32 scalars on the device, without waiting for them."""
    return {name: _checksum(array) for name, array in arrays.items()}


def fetched(sums: Mapping[str, jax.Array]) -> dict[str, int]:
    return {name: int(value) for name, value in jax.device_get(dict(sums)).items()}


def _checksum(array: jax.Array) -> jax.Array:
    if jax.typeof(array).memory_space == jax.memory.Space.Host:  # sums are computed in device memory
        array = jax.device_put(array, jax.memory.Space.Device)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)  # 64-bit elements become two 32-bit words
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * width}").astype(jnp.uint32)
    index, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    # Multiplying by bits of the golden ratio scatters neighbouring indices.
    weight = (index * jnp.uint32(0x9E3779B1)) ^ (index >> 15) | 1
    return jnp.sum(bits * weight, dtype=jnp.uint32)
