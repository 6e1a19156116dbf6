"""Vectorised 64-bit hashing: a mixer, and the hash of every window of a sequence by prefix sums.

A window x[i], …, x[i+n-1] hashes to Σ x[i+k] Bᵏ mod 2⁶⁴ (Karp & Rabin, 1987). With prefix sums of x[j] Bʲ that is one
subtraction and one product by B⁻ⁱ, whatever n is: B is odd, so its inverse exists.
"""

from __future__ import annotations

import functools

import numpy as np

BASE = 0x9E3779B97F4A7C15
CHUNK = 1 << 14  # values hashed at once: the arrays stay in the processor's cache


def mix(hashes: np.ndarray) -> np.ndarray:
    """uint64, scrambled in place so that every bit depends on every bit (splitmix64's finaliser); returns it."""
    hashes ^= hashes >> np.uint64(30)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes


def distinct(values: np.ndarray) -> np.ndarray:
    """The values, ascending, each once. np.unique finds integers by a hash table: 2 to 8 times slower."""
    values = np.sort(values)
    first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


def powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """(Bⁱ, B⁻ⁱ) for i in range(length), uint64."""
    rising, falling = _powers(max(length - 1, CHUNK).bit_length())
    return rising[:length], falling[:length]


@functools.lru_cache(maxsize=2)
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    def series(base: int) -> np.ndarray:
        factors = np.full(1 << bits, base, np.uint64)
        factors[0] = 1
        return np.cumprod(factors)

    return series(BASE), series(pow(BASE, -1, 1 << 64))


def window_hashes(values: np.ndarray, offsets: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all windows of n neighbours that lie inside one document.

    Args:
      values: uint64 [values]; documents one after the other. Their bits should be mixed.
      offsets: int64 [documents + 1]; document d is values[offsets[d]:offsets[d + 1]].

    Returns:
      (hashes uint64 [windows], offsets int64 [documents + 1]); a document shorter than n has none.
    """
    counts = np.maximum(np.diff(offsets) - n + 1, 0)
    window_offsets = np.concatenate([[0], np.cumsum(counts)])
    total = len(values) - n + 1
    if total <= 0:
        return np.zeros(0, np.uint64), window_offsets
    hashes = np.empty(total, np.uint64)
    rising, falling = powers(CHUNK + n)
    sums = np.zeros(CHUNK + n, np.uint64)
    for start in range(0, total, CHUNK):
        here = hashes[start : start + CHUNK]
        size = len(here) + n - 1
        np.cumsum(values[start : start + size] * rising[:size], out=sums[1 : size + 1])
        np.subtract(sums[n : n + len(here)], sums[: len(here)], out=here)
        here *= falling[: len(here)]
        mix(here)
    inside = np.ones(len(values), bool)
    for back in range(1, n):  # a window that starts in a document's last n - 1 places reaches out of it
        places = offsets[1:] - back
        inside[places[places >= 0]] = False
    return hashes[inside[:total]], window_offsets
