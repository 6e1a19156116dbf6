"""The few shapes for which generation is compiled.

Every new shape must be compiled, so lengths are rounded up to multiples of BUCKET: prompts of similar length share one
program. A step reads the whole cache, including its empty slots, so the cache starts small and grows.
"""

from __future__ import annotations

BUCKET = 128
PIECE = 4 * BUCKET  # prompt tokens that the model reads at a time
FIRST_ROOM = 512  # new tokens for which the cache has room at first; the room then doubles


def bucketed(length: int) -> int:
    """Rounds `length` up to a whole number of buckets."""
    return -(-length // BUCKET) * BUCKET


def prompt_slots(length: int, max_positions: int) -> int:
    """Slots for prompts of up to `length` tokens: a multiple of a bucket up to one piece, otherwise a multiple of a
    piece."""
    if length > PIECE:
        return -(-length // PIECE) * PIECE
    return min(bucketed(length), max_positions)


def rooms(num_new: int) -> list[int]:
    """The numbers of new tokens for which the cache has room after each growth, up to `num_new`."""
    sizes = [min(num_new, FIRST_ROOM)]
    while sizes[-1] < num_new:
        sizes.append(min(2 * sizes[-1], num_new))
    return sizes
