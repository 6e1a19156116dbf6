"""Packed pairs: a row has several pairs, which do not see each other.

In both layouts, a target starts after a begin token, and each of its tokens, including EOS, is predicted once.
"""

from __future__ import annotations

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.keys import POSITIONS, SEGMENTS, SOURCE, SOURCE_POSITIONS, SOURCE_SEGMENTS, TARGETS, TOKENS, WEIGHTS
from gptjax.data.packed_index import BLOCK, count_up
from gptjax.data.pair_index import PairIndex, side_lengths
from gptjax.data.tokens import TokenSource

SIDES = ((SOURCE, SOURCE_SEGMENTS, SOURCE_POSITIONS), (TARGETS, SEGMENTS, POSITIONS))


class PackedPairs:
    """Rows of S positions for sources and T for targets, for a model with an encoder and a decoder.

    Attributes:
      left_out: the number of pairs that are left out because one side is longer than a row.
    """

    LAYOUT = f"sources beside targets; best fit in blocks of {BLOCK} tokens"
    FORMS = ("pairs",)
    LENGTHS = ("source_length", "sequence_length")

    def __init__(self, source: TokenSource, source_length: int, sequence_length: int):
        """Raises ConfigError if no pair fits into a row, or the index cannot be stored."""
        self._source = source
        self._lengths = source_length, sequence_length
        self._index = PairIndex(source, *self._lengths)
        self.left_out = self._index.left_out

    def __len__(self) -> int:
        return self._index.num_rows

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """Returns some rows, int32: source, source_segments and source_positions [B, S]; tokens, targets, segments and
        positions [B, T]; and weights float32 [B, T].

        Segments are numbered from 1 within a row, both sides of a pair have the same number, and 0 is padding, which
        comes last. Positions start at 0 in each segment.
        """
        counts_B, pairs = self._index.pairs(index_B)
        rows_of = np.repeat(np.arange(len(index_B)), counts_B)
        segments = count_up(counts_B) + 1
        batch: dict[str, np.ndarray] = {}
        for side, ((of_tokens, of_segments, of_positions), length) in enumerate(zip(SIDES, self._lengths)):
            starts, lengths = _places(self._source, pairs, side)
            tokens = self._source.take_runs(starts, lengths)
            inside_BT = np.arange(length) < np.bincount(rows_of, lengths, len(index_B))[:, None]
            values = {
                of_tokens: tokens,
                of_segments: np.repeat(segments, lengths),
                of_positions: count_up(lengths),
            }
            if of_tokens == TARGETS:
                values[TOKENS] = after_begin(tokens, lengths, self._source.begin_id)
                batch[WEIGHTS] = inside_BT.astype(np.float32)
            batch |= {name: placed(inside_BT, inside) for name, inside in values.items()}
        return batch

    def spans(self, index: int) -> np.ndarray:
        """int64 [pairs, 3]: (first position in the row, place of its target in the stream, targets) of each target."""
        _, pairs = self._index.pairs(np.array([index]))
        starts, lengths = _places(self._source, pairs, 1)
        return np.stack([np.cumsum(lengths) - lengths, starts, lengths], axis=1)


class PackedCompletions:
    """Rows of T positions with source, EOS, target and EOS of each pair, for a model that only has a decoder.

    Only the target and its EOS have a weight. If documents begin with BOS, there is a BOS between source and target.

    Attributes:
      left_out: the number of pairs that are left out because they are longer than a row.
    """

    LAYOUT = f"begin token, source, target; best fit in blocks of {BLOCK} tokens"
    FORMS = ("pairs",)
    LENGTHS = ("sequence_length",)

    def __init__(self, source: TokenSource, sequence_length: int):
        """Raises ConfigError if the sides have two vocabularies, no pair fits, or the index cannot be stored."""
        if source.has_two_vocabularies:
            raise ConfigError(
                f"data.path = {str(source.folder)!r}: sources and targets have two vocabularies, but a decoder has "
                "one: prepare the pairs without --source_tokenizer"
            )
        self._source, self._length = source, sequence_length
        self._index = PairIndex(source, 0, sequence_length)
        self.left_out = self._index.left_out

    def __len__(self) -> int:
        return self._index.num_rows

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """tokens, targets, segments, positions int32 [B, T] and weights float32 [B, T] of some rows.

        Segments count from 1 within a row and are 0 in padding, which comes last; positions start at 0 in each segment.
        """
        return completions(self._source, *self._index.pairs(index_B), self._length)

    def spans(self, index: int) -> np.ndarray:
        """int64 [pairs, 3]: (first position in the row, place of its target in the stream, targets) of each pair."""
        _, pairs = self._index.pairs(np.array([index]))
        starts, lengths, _ = completion_places(self._source, pairs)
        return np.stack([np.cumsum(lengths) - lengths, starts, lengths], axis=1)


def completions(source: TokenSource, counts_B: np.ndarray, pairs: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """Rows of a decoder that hold these numbers of pairs, as `PackedCompletions.gather` returns them."""
    starts, lengths, given = completion_places(source, pairs)
    tokens = source.take_runs(starts, lengths)
    rows_of = np.repeat(np.arange(len(counts_B)), counts_B)
    inside_BT = np.arange(length) < np.bincount(rows_of, lengths, len(counts_B))[:, None]
    within = count_up(lengths)
    values = {
        TOKENS: after_begin(tokens, lengths, source.begin_id),
        TARGETS: tokens,
        SEGMENTS: np.repeat(count_up(counts_B) + 1, lengths),
        POSITIONS: within,
    }
    batch = {name: placed(inside_BT, inside) for name, inside in values.items()}
    batch[WEIGHTS] = placed(inside_BT, within >= np.repeat(given, lengths)).astype(np.float32)
    return batch


def completion_places(source: TokenSource, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 [pairs]: place of a pair's first token, number of its tokens, and number of given tokens."""
    starts, sources = _places(source, pairs, 0)
    given = sources + source.own_begin
    return starts, given + _places(source, pairs, 1)[1], given


def _places(source: TokenSource, pairs: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [pairs]: place of the first token and number of tokens of one side of some pairs."""
    starts = source.offsets_of(2 * pairs + side) + source.own_begin
    return starts, side_lengths(source, pairs)[side]


def after_begin(targets: np.ndarray, lengths: np.ndarray, begin_id: int) -> np.ndarray:
    """The inputs for runs of targets: the begin token, and all but the last target of each run."""
    inputs = np.empty_like(targets)
    inputs[1:] = targets[:-1]
    inputs[np.cumsum(lengths) - lengths] = begin_id
    return inputs


def placed(inside_BT: np.ndarray, values: np.ndarray) -> np.ndarray:
    """int32 [B, T]: the values where the mask says, 0 elsewhere."""
    placed = np.zeros(inside_BT.shape, np.int32)
    placed[inside_BT] = values
    return placed
