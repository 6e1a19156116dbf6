"""MinHash (Broder, 1997): a short signature of a set of shingles, and keys under which similar signatures meet.

The share of places in which two signatures agree estimates the Jaccard similarity of the sets. Cut into bands of some
rows, documents that agree in a whole band get the same key for it (locality-sensitive hashing: see bands.py).
"""

from __future__ import annotations

import numpy as np

from gptjax.corpus.duplicates.hashing import mix

CHUNK = 1 << 16  # shingles permuted at once: they stay in the processor's cache
EMPTY = np.uint32(0xFFFFFFFF)


def signatures(flat: np.ndarray, offsets: np.ndarray, permutations: int, seed: int = 0) -> np.ndarray:
    """MinHash signatures under the permutations h → a h + b mod 2³², a odd, of the upper halves of the hashes.

    Args:
      flat: uint64 [shingles], mixed hashes; offsets: int64 [documents + 1].

    Returns:
      uint32 [documents, permutations]; all ones (4,294,967,295) for a document without shingles.
    """
    rng = np.random.default_rng(seed)
    multipliers = rng.integers(0, 1 << 32, permutations, np.uint32) | np.uint32(1)
    addends = rng.integers(0, 1 << 32, permutations, np.uint32)
    filled = np.flatnonzero(np.diff(offsets))
    starts, ends = offsets[:-1][filled], offsets[1:][filled]
    least = np.full((permutations, len(filled)), EMPTY)
    buffer = np.empty(CHUNK, np.uint32)
    for start in range(0, len(flat), CHUNK):
        hashes = (flat[start : start + CHUNK] >> np.uint64(32)).astype(np.uint32)
        permuted = buffer[: len(hashes)]
        # Documents with shingles in this chunk; a long one is met again in the next.
        first, last = np.searchsorted(ends, start, "right"), np.searchsorted(starts, start + CHUNK, "left")
        inner = np.maximum(starts[first:last] - start, 0)
        for k in range(permutations):
            np.multiply(hashes, multipliers[k], out=permuted)
            np.add(permuted, addends[k], out=permuted)
            here = least[k, first:last]
            np.minimum(here, np.minimum.reduceat(permuted, inner), out=here)
    found = np.full((len(offsets) - 1, permutations), EMPTY)
    found[filled] = least.T
    return found


def band_keys(signatures_DK: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [documents, bands]: equal where documents agree in all `rows` values of a band; bands share no keys."""
    if bands * rows > signatures_DK.shape[1]:
        raise ValueError(f"{bands} bands of {rows} rows need {bands * rows} values, not {signatures_DK.shape[1]}")
    values_DBR = signatures_DK[:, : bands * rows].reshape(len(signatures_DK), bands, rows)
    keys = np.tile(mix(np.arange(1, bands + 1, dtype=np.uint64)), (len(signatures_DK), 1))
    for row in range(rows):
        keys ^= values_DBR[:, :, row]
        mix(keys)
    return keys
