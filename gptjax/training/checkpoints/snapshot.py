"""Copies of the state for background saves, while the next step overwrites the original."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ALIGNMENT = 64  # bytes; a CPU device uses memory with this alignment without copying it
# Since device memory is fragmented, a copy is made there only if twice its size was never in use.
_ROOM = 2


class Snapshots:
    """Copies states of one shape. A copy must no longer be in use when the next one is taken.

    On a CPU the copies reuse the same memory: filling fresh memory takes several times as long. Without a copy, XLA
    would itself copy every donated array that is still being written to disk, which is as slow. On other devices, the
    copy is made in device memory, at its speed and without blocking.
    """

    def __init__(self) -> None:
        self._buffers: list[dict[tuple, np.ndarray]] = []
        self._has_room: bool | None = None  # decided once, since later peaks include copies

    def take(self, state: Any) -> Any | None:
        """A copy of the tree with the same shardings; the state may be donated as soon as this returns.

        None if a device has no room for it, if a part is already on the host (`optimizer.memory`), or if other
        processes hold parts of the state: all processes would have to start their programs in the same order, which a
        background thread cannot guarantee.
        """
        leaves, structure = jax.tree.flatten(state)
        if jax.process_count() > 1 or any(leaf.sharding.memory_kind == "pinned_host" for leaf in leaves):
            return None
        if jax.default_backend() == "cpu":
            return jax.tree.unflatten(structure, self._on_host(leaves))
        if self._has_room is None:
            self._has_room = _has_room(leaves)
        if not self._has_room:
            return None
        return jax.jit(_copy, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, state))(state)

    def _on_host(self, leaves: list[jax.Array]) -> list[jax.Array]:
        self._buffers = self._buffers or [_buffers_like(leaf) for leaf in leaves]
        jax.block_until_ready(leaves)
        for leaf, buffers in zip(leaves, self._buffers, strict=True):
            for shard in leaf.addressable_shards:
                if shard.replica_id == 0:
                    np.copyto(buffers[_key(shard)], np.asarray(shard.data))
        return [_array(leaf, buffers) for leaf, buffers in zip(leaves, self._buffers, strict=True)]


def _copy(state: Any) -> Any:
    return jax.tree.map(jnp.copy, state)


def _has_room(leaves: list[jax.Array]) -> bool:
    """Whether each device had room for a copy of its part of the arrays at its peak memory use."""
    needed: dict[jax.Device, int] = {}
    for leaf in leaves:
        for shard in leaf.addressable_shards:
            needed[shard.device] = needed.get(shard.device, 0) + shard.data.nbytes
    for device, size in needed.items():
        stats = _memory_stats(device)
        if not stats or stats["bytes_limit"] - stats["peak_bytes_in_use"] < _ROOM * size:
            return False
    return True


def _memory_stats(device: jax.Device) -> dict[str, int] | None:
    return device.memory_stats()


def _key(shard: Any) -> tuple:
    """The part of the array that a shard holds; replicas have the same key."""
    return tuple((part.start, part.stop) for part in shard.index)


def _buffers_like(array: jax.Array) -> dict[tuple, np.ndarray]:
    return {_key(shard): _empty(shard.data.shape, array.dtype) for shard in array.addressable_shards}


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _array(array: jax.Array, buffers: dict[tuple, np.ndarray]) -> jax.Array:
    """The buffers as an array of the same sharding; replicas share one."""
    shards = [jax.device_put(buffers[_key(s)], s.device, may_alias=True) for s in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, shards)
