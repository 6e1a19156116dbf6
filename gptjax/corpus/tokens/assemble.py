"""Joins encoded shards to the token stream of each split, repeating each document by the weight of its source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptjax.corpus.stages.splits import draws
from gptjax.corpus.tokens.shards import ORIGIN, ShardWriter
from gptjax.data.prepared import labels_name, pairs_name, supervised_name, token_dtype
from gptjax.files import file_entry, write_aside

TOKENS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Encoded:
    """One shard's documents of one split: tokens, index, those after it are files of stages/encode.py."""

    part: int
    source: str
    weight: float
    weights: np.ndarray | None  # [documents of the shard]: these multiply the weight
    tokens: Path
    index: Path
    pairs: Path | None = None
    labels: Path | None = None
    supervised: Path | None = None


def assemble(
    encoded: Sequence[Encoded], folder: Path, split: str, vocab_size: int, shard_tokens: int, seed: int
) -> dict:
    """Writes a split's token shards and returns its section of the manifest, with the share of each source.

    The training split is written once for each copy, so that copies are far apart; for the fraction of a weight,
    documents are drawn by their ids. Held-out documents are never repeated.
    """
    writer = ShardWriter(folder, split, vocab_size, shard_tokens)
    sources: dict[str, Counter[str]] = {}
    labels: list[np.ndarray] = []
    supervised = _Bits()
    most = max((each.weight * _largest(each.weights) for each in encoded), default=0) if split == "train" else 1
    for copy in range(int(np.ceil(most))):
        for each in encoded:
            index = np.load(each.index)
            weight = (
                each.weight if each.weights is None or split != "train" else each.weight * each.weights[index["row"]]
            )
            chosen = draws(index["id"], seed) < weight - copy
            if each.labels:
                labels.append(np.load(each.labels)[chosen])
            if each.supervised:
                for bits, _ in _runs(each.supervised, index, chosen, np.dtype(bool)):
                    supervised.extend(bits)
            counts = sources.setdefault(each.source, Counter(documents=0, bytes=0, tokens=0))
            for tokens, some in _runs(each.tokens, index, chosen, token_dtype(vocab_size)):
                origins = np.zeros(len(some), ORIGIN)
                origins["id"], origins["part"], origins["row"] = some["id"], each.part, some["row"]
                writer.extend(tokens, some["length"], origins)
                counts.update(documents=len(some), bytes=int(some["bytes"].sum(dtype=np.int64)), tokens=len(tokens))
    size = sum(counts["bytes"] for counts in sources.values())
    section = {**writer.close(), "bytes": size, "sources": {name: dict(counts) for name, counts in sources.items()}}
    if labels:
        with write_aside(folder / labels_name(split)) as file:
            np.save(file, np.concatenate(labels))
        section["labels"] = file_entry(folder / labels_name(split))
    if any(each.supervised for each in encoded):
        with write_aside(folder / supervised_name(split)) as file:
            file.write(supervised.packed())
        section["supervised"] = {**file_entry(folder / supervised_name(split)), "tokens": supervised.ones}
    return section


def _largest(weights: np.ndarray | None) -> float:
    return 1.0 if weights is None else float(weights.max(initial=0))


class _Bits:
    """Bits that are packed as they come, eight to a byte, the first in the lowest place."""

    def __init__(self) -> None:
        self._bytes, self._rest, self.ones = bytearray(), np.zeros(0, bool), 0

    def extend(self, bits: np.ndarray) -> None:
        self.ones += int(np.count_nonzero(bits))
        bits = np.concatenate([self._rest, bits])
        whole = len(bits) // 8 * 8
        self._bytes += np.packbits(bits[:whole], bitorder="little").tobytes()
        self._rest = bits[whole:]

    def packed(self) -> bytes:
        return bytes(self._bytes) + np.packbits(self._rest, bitorder="little").tobytes()


def assemble_pairs(encoded: Sequence[Encoded], folder: Path, split: str, seed: int) -> dict:
    """Writes SPLIT.pairs.jsonl, the texts of a split's pairs, and returns its entry.

    Each source has one line, with all of its different targets in their order.
    """
    targets_of: dict[str, dict[str, None]] = {}
    for each in encoded:
        for line in each.pairs.read_text(encoding="utf-8").split("\n")[:-1] if each.pairs else ():
            pair = json.loads(line)
            if draws(np.array([pair["id"]], np.uint64), seed)[0] < each.weight:
                targets_of.setdefault(pair["source"], {}).update(dict.fromkeys(pair["targets"]))
    with write_aside(folder / pairs_name(split)) as file:
        for source, targets in targets_of.items():
            line = json.dumps({"source": source, "targets": list(targets)}, ensure_ascii=False)
            file.write(f"{line}\n".encode())
    return file_entry(folder / pairs_name(split))


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
