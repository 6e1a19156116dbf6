"""SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): scrambles 64 bits so that every output bit depends on every input bit.

The n-th number of the generator with state s is mix(s + n · STEP). It is used where a random number must depend only on
its purpose: the order of training windows, the split and samples of a corpus, hashes of words.
"""

from __future__ import annotations

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio, rounded to an odd number
MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """Scrambles an array of uint64 in place, and returns it."""
    values ^= values >> np.uint64(30)
    values *= MULTIPLIER_1
    values ^= values >> np.uint64(27)
    values *= MULTIPLIER_2
    values ^= values >> np.uint64(31)
    return values
