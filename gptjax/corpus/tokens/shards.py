"""Writes the token shards of a split, its document offsets and the origins of its documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptjax.data.prepared import offsets_name, origins_name, shard_name, token_dtype
from gptjax.files import AsideFile, file_entry, write_aside

# The origin of a document of the stream: its id, and its place among the corpus's documents (manifest.json).
ORIGIN = np.dtype([("id", "<u8"), ("part", "<u4"), ("row", "<u4")])


class ShardWriter:
    """Writes one split: `append` documents, then `close`. A shard gets its name when it is complete and on disk."""

    def __init__(self, folder: Path, split: str, vocab_size: int, shard_tokens: int):
        self._folder = folder
        self._split = split
        self._dtype = token_dtype(vocab_size)
        self._shard_tokens = shard_tokens
        self._shards: list[dict] = []
        self._ends: list[np.ndarray] = [np.zeros(1, np.uint64)]
        self._origins: list[np.ndarray] = []
        self.tokens = 0
        self._open_shard: AsideFile | None = None

    def append(self, documents: list[np.ndarray]) -> None:
        """Token ids of some documents, each with its EOS."""
        if documents:
            self.extend(np.concatenate(documents), np.array([len(ids) for ids in documents]))

    def extend(self, tokens: np.ndarray, lengths: np.ndarray, origins: np.ndarray | None = None) -> None:
        """Consecutive documents: tokens [sum of lengths], lengths [documents], origins ORIGIN [documents]."""
        self._ends.append(self.tokens + np.cumsum(lengths, dtype=np.uint64))
        if origins is not None:
            self._origins.append(origins)
        self.tokens += len(tokens)
        tokens = tokens.astype(self._dtype, copy=False)
        while len(tokens):
            if self._open_shard is None:
                self._open_shard = AsideFile(self._folder / shard_name(self._split, len(self._shards)))
            room = self._shard_tokens - self._open_shard.size // self._dtype.itemsize
            self._open_shard.write(tokens[:room].tobytes())
            tokens = tokens[room:]
            if len(tokens):
                self._finish_shard()

    def close(self) -> dict:
        """Finishes the split and returns its manifest section: tokens, documents, shards, offsets, origins if known."""
        if self._open_shard is not None:
            self._finish_shard()
        offsets = np.concatenate(self._ends)
        section = {
            "tokens": self.tokens,
            "documents": len(offsets) - 1,
            "shards": self._shards,
            "offsets": self._save(offsets_name(self._split), offsets),
        }
        if self._origins:
            section["origins"] = self._save(origins_name(self._split), np.concatenate(self._origins))
        return section

    def _save(self, name: str, values: np.ndarray) -> dict:
        with write_aside(self._folder / name) as file:
            np.save(file, values)
        return file_entry(self._folder / name)

    def _finish_shard(self) -> None:
        shard, self._open_shard = self._open_shard, None
        assert shard is not None  # the caller has opened one
        self._shards.append({**shard.finish(), "tokens": shard.size // self._dtype.itemsize})
