"""Computes the windows at given places of a stream, without storing an order.

A keyed bijection on 0 … size - 1 gives the source's windows a new order in each epoch. Sources take turns in a pattern
that repeats after a period. Place 10¹² is therefore computed as fast as place 0, and depends only on the seed.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np

from gptjax.data.splitmix import MULTIPLIER_1, MULTIPLIER_2, STEP, mix

VERSION = "feistel-10"  # version of the orders, saved with a run: change it whenever an order changes
VALIDATION_KEY = np.uint64(0)  # runs with different seeds are evaluated on the same windows

_ROUNDS = 10  # with 6 rounds, pairs of places among 65 windows are not random (see the tests)
_SORTED_SIZE = 64  # up to this size, a Feistel network's halves are too small to mix
_SHARES = 100_000  # weights are rounded to multiples of 1 / _SHARES

_HALF_WORD = np.uint64(32)


class TrainingOrder:
    """Epochs of several sources, interleaved by weight. Each source is shuffled again for each epoch.

    At every place, the number of windows taken from a source differs from its weight's share by less than one.

    Attributes:
      weights: the share of each source, rounded to a positive multiple of 1/100,000.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int):
        """sizes: windows of each source. weights: above 0, with any sum."""
        self._sizes = sizes
        self._keys = np.random.SeedSequence(seed).generate_state(len(sizes), np.uint64)
        total = sum(weights)
        shares = np.array([max(1, round(_SHARES * weight / total)) for weight in weights])
        self._counts = shares // math.gcd(*shares.tolist())
        self._turns, self._ranks = turns(self._counts)
        self.weights = (self._counts / len(self._turns)).tolist()

    def __call__(self, places_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each place, and the window within that source. Any place from 0 on is valid."""
        period, turn_B = np.divmod(places_B, len(self._turns))
        source_B = self._turns[turn_B]
        rank_B = period * self._counts[source_B] + self._ranks[turn_B]
        window_B = np.empty_like(rank_B)
        for source, (size, key) in enumerate(zip(self._sizes, self._keys)):
            of_source_B = source_B == source
            window_B[of_source_B] = shuffled(rank_B[of_source_B], size, key)
        return source_B, window_B


class ValidationOrder:
    """All windows of all sources once, in one shuffled order.

    Attributes:
      weights: the share of each source.
    """

    def __init__(self, sizes: Sequence[int]):
        self.weights = [size / sum(sizes) for size in sizes]
        self._first = np.concatenate([[0], np.cumsum(sizes)])  # numbers of each source's windows

    def __call__(self, places_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each place, and the window within that source; places must be below the number of windows."""
        number_B = shuffled(places_B, int(self._first[-1]), VALIDATION_KEY)
        source_B = np.searchsorted(self._first, number_B, side="right") - 1
        return source_B, number_B - self._first[source_B]


def shuffled(places_B: np.ndarray, size: int, key: np.uint64) -> np.ndarray:
    """The int64 numbers at given places of an endless sequence of epochs, each of which has 0 … size - 1 in its own
    order.

    This is a Feistel network over pairs (left, right) of the mixed radix a · b ≥ size with a ≈ b ≈ √size, which hardly
    exceeds the size. A number beyond the size passes through the network again until it is below (Black & Rogaway 2002,
    "Ciphers with Arbitrary Finite Domains"). A small number of windows is sorted by random numbers instead.
    """
    epoch_B, place_B = np.divmod(np.asarray(places_B, np.int64).astype(np.uint64), np.uint64(size))
    draws = size if size <= _SORTED_SIZE else _ROUNDS
    counter = np.arange(1, draws + 1, dtype=np.uint64)[:, None] + epoch_B * np.uint64(draws)
    random_RB = mix(key + counter * STEP)  # R random numbers for each place's epoch: one per window or round
    if size <= _SORTED_SIZE:
        order_RB = np.argsort(random_RB, axis=0)
        return order_RB[place_B.astype(np.int64), np.arange(len(place_B))]
    number_B = _feistel(place_B, size, random_RB)
    while len(beyond := np.flatnonzero(number_B >= np.uint64(size))):
        number_B[beyond] = _feistel(number_B[beyond], size, random_RB[:, beyond])
    return number_B.astype(np.int64)


def _feistel(number_B: np.ndarray, size: int, keys_RB: np.ndarray) -> np.ndarray:
    """A bijection on the uint64 numbers 0 … a·b - 1: each round adds to one half a number drawn from the other half."""
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    radix, other_radix = np.uint64(a), np.uint64(b)
    half_B, other_half_B = np.divmod(number_B, other_radix)
    for key_B in keys_RB:
        drawn_B = (other_half_B ^ key_B) * MULTIPLIER_1
        drawn_B ^= drawn_B >> _HALF_WORD
        drawn_B *= MULTIPLIER_2
        drawn_B >>= _HALF_WORD
        drawn_B += half_B
        drawn_B %= radix
        half_B, other_half_B = other_half_B, drawn_B
        radix, other_radix = other_radix, radix
    return half_B * np.uint64(b) + other_half_B  # after an even number of rounds, the halves are back in their places


def turns(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A period of sum(counts) turns, of which source s has counts[s]: (source of each turn, its turns before that).

    After any p turns, a source has had its share p · counts[s] / period to within less than one: its k-th turn may not
    come before place ⌊k · period / counts[s]⌋ and is due before ⌈(k + 1) · period / counts[s]⌉. Among the sources that
    may come, the one that is due first takes the turn, which meets all due dates (Tijdeman 1980, "The chairman
    assignment problem").
    """
    period = int(counts.sum())
    source = np.repeat(np.arange(len(counts)), counts)
    k = np.concatenate([np.arange(count) for count in counts])
    earliest = k * period // counts[source]
    due = -(-(k + 1) * period // counts[source])
    by_earliest = np.argsort(earliest, kind="stable")
    coming = list(zip(earliest[by_earliest].tolist(), due[by_earliest].tolist(), source[by_earliest].tolist()))[::-1]
    waiting: list[tuple[int, int]] = []
    due_first: list[int] = []
    for turn in range(period):
        while coming and coming[-1][0] <= turn:
            heapq.heappush(waiting, coming.pop()[1:])
        due_first.append(heapq.heappop(waiting)[1])
    order = np.array(due_first)
    rank = np.empty_like(k)
    rank[np.argsort(order, kind="stable")] = k
    return order, rank
