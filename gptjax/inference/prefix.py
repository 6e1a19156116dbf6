"""Keys and values of earlier prompts and their texts, so that a prompt with the same beginning is not read again.

A prompt or text is cut into blocks of BLOCK tokens. A block is known by a digest of its own tokens and of all before it
(a hash chain), so equal digests mean equal beginnings. The keys and values of kept blocks are in a pool on the device,
a cache whose rows are blocks; when it is full, the blocks that were used longest ago are replaced.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.inference import shapes
from gptjax.inference.devices import committed, devices_of, pinned, placed_shapes
from gptjax.inference.generate import Generator
from gptjax.model.cache import KeyValueCache, allocate
from gptjax.settings import ModelSettings


class PrefixCache:
    """Blocks of prompts and texts. It belongs to the engine's thread.

    Args:
      generator: the model.
      num_blocks: how many are kept; at least 1.
    """

    def __init__(self, generator: Generator, num_blocks: int):
        self._generator, self._num_blocks = generator, num_blocks
        self.clear()
        self._pool_shapes = placed_shapes(generator, self._pool)

    def clear(self) -> None:
        """Forgets all blocks."""
        with devices_of(self._generator):
            pool = _empty(self._generator.config, self._num_blocks, shapes.BLOCK)
        self._pool = committed(self._generator, pool)
        self._places: OrderedDict[bytes, int] = OrderedDict()  # of blocks in the pool, used longest ago first

    def chain(self, model: bytes, tokens: Sequence[int]) -> list[bytes]:
        """The digests of the full blocks of a prompt, except one that ends with the prompt's last token, which must be
        read in any case. model: what else the keys and values depend on."""
        digest, chain = hashlib.blake2b(model, digest_size=16).digest(), []
        for first in range(0, len(tokens) - shapes.BLOCK, shapes.BLOCK):
            block = np.asarray(tokens[first : first + shapes.BLOCK], np.int32)
            digest = hashlib.blake2b(digest + block.tobytes(), digest_size=16).digest()
            chain.append(digest)
        return chain

    def num_known(self, chain: Sequence[bytes]) -> int:
        """The number of blocks at the beginning of the chain that are kept."""
        return next((i for i, digest in enumerate(chain) if digest not in self._places), len(chain))

    def load(self, chain: Sequence[bytes], slots: int) -> KeyValueCache:
        """The cache of a row that has read these blocks, all of which are kept."""
        self._touch(chain)
        places = np.zeros(slots // shapes.BLOCK, np.int32)
        places[: len(chain)] = [self._places[digest] for digest in chain]
        return _loaded(self._pool, places, np.array([len(chain) * shapes.BLOCK], np.int32))

    def keep(self, chain: Sequence[bytes], cache: KeyValueCache, row: int = 0) -> None:
        """Keeps the blocks that this row of a cache has read; those that are new and for which there is room."""
        self._touch(chain)
        places = np.full(cache.num_slots // shapes.BLOCK, self._num_blocks, np.int32)  # beyond the pool: not kept
        own = set(chain)
        for index, digest in enumerate(chain):
            if digest in self._places:
                continue
            place = len(self._places)
            if place == self._num_blocks:
                oldest, place = next(iter(self._places.items()))
                if oldest in own:
                    break
                del self._places[oldest]
            self._places[digest] = places[index] = place
        # The beginning of a chain is used most recently, since the rest is of no use without it.
        self._touch(chain)
        if (places < self._num_blocks).any():
            self._pool = _kept(self._pool, cache, places, np.int32(row))

    def programs(self, cache: KeyValueCache) -> list[tuple[Any, tuple, dict[str, Any]]]:
        """The functions that `keep` and `load` call for rows of such a cache, and their arguments, which may be shapes
        (see `engine_programs`)."""
        places, pool = np.zeros(cache.num_slots // shapes.BLOCK, np.int32), self._pool_shapes
        programs: list[tuple[Any, tuple, dict[str, Any]]] = [(_kept, (pool, cache, places, np.int32(0)), {})]
        if len(cache.lengths_B) == 1:
            programs.append((_loaded, (pool, places, np.zeros(1, np.int32)), {}))
        return programs

    def _touch(self, chain: Sequence[bytes]) -> None:
        for digest in reversed(chain):
            if digest in self._places:
                self._places.move_to_end(digest)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _empty(config: ModelSettings, num_blocks: int, block: int) -> KeyValueCache:
    return pinned(allocate(config, num_blocks, block))


@jax.jit
def _loaded(pool: KeyValueCache, place_N: jax.Array, length_1: jax.Array) -> KeyValueCache:
    def row(pool_PKSH: jax.Array) -> jax.Array:
        blocks_KNSH = jnp.swapaxes(pool_PKSH[place_N], 0, 1)
        return blocks_KNSH.reshape(1, pool_PKSH.shape[1], -1, pool_PKSH.shape[3])

    keys, values = (tuple(map(row, layers)) for layers in (pool.keys, pool.values))
    return pinned(KeyValueCache(keys=keys, values=values, lengths_B=length_1))


@partial(jax.jit, donate_argnums=0)
def _kept(pool: KeyValueCache, cache: KeyValueCache, place_N: jax.Array, row: jax.Array) -> KeyValueCache:
    def with_blocks(pool_PKSH: jax.Array, rows_BKSH: jax.Array) -> jax.Array:
        _, K, block, H = pool_PKSH.shape
        blocks_NKSH = jnp.swapaxes(rows_BKSH[row].reshape(K, -1, block, H), 0, 1)
        return pool_PKSH.at[place_N].set(blocks_NKSH, mode="drop")

    keys = tuple(map(with_blocks, pool.keys, cache.keys))
    return pinned(pool.replace(keys=keys, values=tuple(map(with_blocks, pool.values, cache.values))))  # type: ignore[attr-defined]
