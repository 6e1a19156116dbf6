"""The few shapes for which generation is compiled.

Every new shape must be compiled, so lengths are rounded up to multiples of BUCKET: prompts of similar length share one
program. A step reads the whole cache, including its empty slots, so the cache starts small and grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BUCKET = 128
PIECE = 4 * BUCKET  # prompt tokens that the model reads at a time
FIRST_ROOM = 512  # new tokens for which the cache has room at first; the room then doubles
BLOCK = 32  # the engine keeps keys and values of prompts in blocks of this many tokens
FEWEST_SLOTS = 256  # per row of the engine's smallest batch, unless the context is shorter
TOGETHER = 4  # prompts of which one call reads a short piece each; with more, a token does not become cheaper


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


@dataclass(frozen=True)
class EngineShapes:
    """The shapes of the engine's programs (see `batch`), each in increasing order; all lengths are multiples of BLOCK.

    Attributes:
      rows: numbers of rows of a batch.
      slots: numbers of tokens for which each row of a batch has room.
      pieces: numbers of tokens of a prompt that are read at a time.
      num_steps: the most steps that a call takes.
      num_proposed: the tokens that each step proposes (see `speculation`).
    """

    rows: tuple[int, ...]
    slots: tuple[int, ...]
    pieces: tuple[int, ...]
    num_steps: int
    num_proposed: int = 0

    @property
    def num_new(self) -> int:
        """The most tokens that a call generates in each row."""
        return self.num_steps * (1 + self.num_proposed)

    def slots_for(self, tokens: int) -> int:
        """The slots for a row that will have read so many tokens. A further step writes behind them, also when the row
        is done, except where nothing can follow since the context ends."""
        return smallest(self.slots, min(tokens + 1 + self.num_proposed, self.slots[-1]))

    def piece_for(self, tokens: int, free: int) -> int:
        """The length of the program that reads the next of `tokens` tokens where a row has `free` slots left."""
        fitting = [piece for piece in self.pieces if piece <= free]
        return smallest(fitting, min(tokens, fitting[-1]))

    def together(self, piece: int) -> int:
        """The number of prompts of which one call reads a piece of this length each, if so many wait."""
        return TOGETHER if TOGETHER * piece <= self.pieces[-1] else 1


def engine_shapes(num_rows: int, context: int, piece: int, num_steps: int, num_proposed: int = 0) -> EngineShapes:
    """The shapes for up to `num_rows` rows of up to `context` tokens, read up to `piece` tokens at a time."""

    def whole_blocks(tokens: int) -> int:
        return -(-tokens // BLOCK) * BLOCK

    most = whole_blocks(context + num_proposed)
    first = min(most, whole_blocks(max(FEWEST_SLOTS, -(-context // 8)) + num_proposed))
    return EngineShapes(
        rows=_grown(1, 8, num_rows),
        slots=_grown(first, 2, most),
        pieces=_grown(BLOCK, 2, max(BLOCK, 1 << (min(piece, most).bit_length() - 1))),
        num_steps=num_steps,
        num_proposed=num_proposed,
    )


def smallest(sizes: Sequence[int], least: int) -> int:
    """The smallest of these sizes, in increasing order, that is at least `least`."""
    return next(size for size in sizes if size >= least)


def neighbors(sizes: Sequence[int], size: int) -> list[int]:
    """The sizes before and after this one."""
    place = list(sizes).index(size)
    return [sizes[i] for i in (place - 1, place + 1) if 0 <= i < len(sizes)]


def _grown(first: int, factor: int, last: int) -> tuple[int, ...]:
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(min(factor * sizes[-1], last))
    return tuple(sizes)
