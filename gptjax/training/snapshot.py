"""The state as it is now, out of reach of the step that overwrites it: what a save in the background writes from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ALIGNMENT = 64  # bytes, of memory that a CPU device takes over without copying it
# The memory of a device is not in one piece: a copy is made there only if twice its size was never in use.
_ROOM = 2


class Snapshots:
    """Makes copies of states of one shape, each of which must be done with before the next is taken.

    On a CPU the copies share memory that is kept: filling fresh memory takes the system several times as long as
    copying into old, and so does what would happen without a copy here, XLA copying every donated array that is still
    being written. On other devices the copy is made there, at the speed of their memory and without waiting for it.
    """

    def __init__(self) -> None:
        self._buffers: list[dict[tuple, np.ndarray]] = []
        self._has_room: bool | None = None  # asked once: copies are themselves part of the most that was in use

    def take(self, state: Any) -> Any | None:
        """A tree of equal arrays in equal places; the state may be donated as soon as this returns.

        None where a device has no room for it, or where other processes hold parts of the state: their programs would
        have to be started in the same order everywhere, which a background thread cannot promise.
        """
        if jax.process_count() > 1:
            return None
        leaves, structure = jax.tree.flatten(state)
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
    """Whether the fullest device had, at its fullest, room for a copy of what it holds of the arrays."""
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
    """What part of the array it is: replicas have the same."""
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
