"""Which split a document goes to, and the writing of a split's token shards and document offsets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from gptjax.config import ConfigError
from gptjax.corpus.files import AsideFile, file_entry, write_aside
from gptjax.data.prepared import offsets_name, shard_name, token_dtype

SPLIT_BY = ("document", "tail")


class Splitter:
    """Sends text to 'train' or 'validation'.

    By 'document', a document's hash decides, so that copies of one document stand on one side. By 'tail', every
    document's last part is held out, cut after a line where it can be: for corpora of one or a few long documents.
    """

    def __init__(self, validation_fraction: float, split_by: str, seed: int):
        if not 0 <= validation_fraction < 1:
            raise ConfigError(f"validation_fraction = {validation_fraction}: must be in [0, 1)")
        if split_by not in SPLIT_BY:
            raise ConfigError(f"split_by = {split_by!r}: expected one of {', '.join(SPLIT_BY)}")
        self._fraction = validation_fraction
        self._seed = seed
        self._parts = self._by_document if split_by == "document" else self._by_tail
        self.splits = ("train", "validation") if validation_fraction else ("train",)

    def __call__(self, text: str) -> Iterator[tuple[str, str]]:
        """The (split, text) parts of a document, none of them empty."""
        return self._parts(text)

    def _by_document(self, text: str) -> Iterator[tuple[str, str]]:
        draw = xxhash.xxh3_64_intdigest(text.encode(), self._seed) / 2**64
        yield ("validation" if draw < self._fraction else "train"), text

    def _by_tail(self, text: str) -> Iterator[tuple[str, str]]:
        cut = round(len(text) * (1 - self._fraction))
        cut = text.rfind("\n", max(cut // 2, cut - 1000), cut) + 1 or cut
        if text[:cut]:
            yield "train", text[:cut]
        if text[cut:]:
            yield "validation", text[cut:]


class ShardWriter:
    """Writes one split: `append` documents, then `close`. A shard takes its name when it is whole and on disk."""

    def __init__(self, folder: Path, split: str, vocab_size: int, shard_tokens: int):
        self._folder = folder
        self._split = split
        self._dtype = token_dtype(vocab_size)
        self._shard_tokens = shard_tokens
        self._shards: list[dict] = []
        self._ends: list[np.ndarray] = [np.zeros(1, np.uint64)]
        self.tokens = 0
        self._open_shard: AsideFile | None = None

    def append(self, documents: list[np.ndarray]) -> None:
        """Token ids of some documents, each with its EOS."""
        if not documents:
            return
        ends = self.tokens + np.cumsum([len(ids) for ids in documents], dtype=np.uint64)
        self._ends.append(ends)
        self.tokens = int(ends[-1])
        tokens = np.concatenate(documents).astype(self._dtype)
        while len(tokens):
            if self._open_shard is None:
                self._open_shard = AsideFile(self._folder / shard_name(self._split, len(self._shards)))
            room = self._shard_tokens - self._open_shard.size // self._dtype.itemsize
            self._open_shard.write(tokens[:room].tobytes())
            tokens = tokens[room:]
            if len(tokens):
                self._finish_shard()

    def close(self) -> dict:
        """Finishes the split and returns its manifest section: tokens, documents, shards, offsets."""
        if self._open_shard is not None:
            self._finish_shard()
        offsets = np.concatenate(self._ends)
        path = self._folder / offsets_name(self._split)
        with write_aside(path) as file:
            np.save(file, offsets)
        return {
            "tokens": self.tokens,
            "documents": len(offsets) - 1,
            "shards": self._shards,
            "offsets": file_entry(path),
        }

    def _finish_shard(self) -> None:
        shard, self._open_shard = self._open_shard, None
        self._shards.append({**shard.finish(), "tokens": shard.size // self._dtype.itemsize})
