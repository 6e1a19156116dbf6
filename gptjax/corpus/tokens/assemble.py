"""Joins encoded shards to the token stream of each split, repeating each document by the weight of its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptjax.corpus.stages.splits import draws
from gptjax.corpus.tokens.shards import ORIGIN, ShardWriter
from gptjax.data.prepared import token_dtype

TOKENS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Encoded:
    """One shard's documents of one split: tokens, index are files of stages/encode.py."""

    part: int
    source: str
    weight: float
    tokens: Path
    index: Path


def assemble(
    encoded: Sequence[Encoded], folder: Path, split: str, vocab_size: int, shard_tokens: int, seed: int
) -> dict:
    """Writes a split's token shards and returns its section of the manifest, with what each source has in it.

    A training split is passed through once for each copy, so that copies lie far apart; what a weight has beyond a
    whole number are documents drawn by their ids. Held-out documents are never repeated.
    """
    writer = ShardWriter(folder, split, vocab_size, shard_tokens)
    sources: dict[str, Counter[str]] = {}
    most = max((each.weight for each in encoded), default=0) if split == "train" else 1
    for copy in range(int(np.ceil(most))):
        for each in encoded:
            index = np.load(each.index)
            chosen = draws(index["id"], seed) < each.weight - copy
            counts = sources.setdefault(each.source, Counter(documents=0, bytes=0, tokens=0))
            for tokens, some in _runs(each.tokens, index, chosen, token_dtype(vocab_size)):
                origins = np.zeros(len(some), ORIGIN)
                origins["id"], origins["part"], origins["row"] = some["id"], each.part, some["row"]
                writer.extend(tokens, some["length"], origins)
                counts.update(documents=len(some), bytes=int(some["bytes"].sum(dtype=np.int64)), tokens=len(tokens))
    size = sum(counts["bytes"] for counts in sources.values())
    return {**writer.close(), "bytes": size, "sources": {name: dict(counts) for name, counts in sources.items()}}


def _runs(
    path: Path, index: np.ndarray, chosen: np.ndarray, dtype: np.dtype
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tokens, index entries) of the chosen documents, about TOKENS_AT_ONCE at a time."""
    if not chosen.any():
        return
    stream = np.memmap(path, dtype, mode="r")
    ends = np.cumsum(index["length"], dtype=np.int64)
    starts = ends - index["length"]
    changes = np.flatnonzero(np.diff(ends // TOKENS_AT_ONCE)) + 1
    for first, last in zip([0, *changes], [*changes, len(index)]):
        here = np.flatnonzero(chosen[first:last]) + first
        if len(here) == last - first:
            yield stream[starts[first] : ends[last - 1]], index[first:last]
        elif len(here):
            yield np.concatenate([stream[starts[i] : ends[i]] for i in here]), index[here]
