"""The tokens of one split of a prepared folder: memory-mapped shards that read like one long array."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.prepared import check_files, read_manifest, split_files


class TokenSource:
    """One split's token stream and where its documents end; checked on opening, mapped on first use.

    Only the paths travel to a loader process: each maps the files itself.

    Attributes:
      num_tokens: tokens in the stream, over all shards and documents, EOS included.
      vocab_size, eos_id, tokenizer_hash: of the tokenizer that wrote it.
      files: the entries (name, size, hash) that the manifest has for it.
    """

    def __init__(self, folder: str | Path, split: str, verify: bool = True):
        """Raises ConfigError where the folder or the split is missing, or a file is not what the manifest says."""
        self.folder = Path(folder)
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise ConfigError(
                f"data.path = {str(folder)!r}: has no {split} split, only {', '.join(manifest['splits'])}"
            )
        self.files = split_files(manifest, split)
        check_files(folder, self.files, verify)
        section = manifest["splits"][split]
        self.num_tokens: int = section["tokens"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.eos_id: int = manifest["tokenizer"]["eos_id"]
        self.tokenizer_hash: str = manifest["tokenizer"]["hash"]
        self._dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        self._shards = [(shard["name"], shard["tokens"]) for shard in section["shards"]]
        self._offsets_name = section["offsets"]["name"]

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_maps", "_bounds")}

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        # Plain arrays over the maps: np.memmap does work of its own for every slice.
        return [
            np.asarray(np.memmap(self.folder / name, self._dtype, mode="r", shape=(tokens,)))
            for name, tokens in self._shards
        ]

    @cached_property
    def _bounds(self) -> np.ndarray:
        """Shard i holds the places from bounds[i] to bounds[i + 1]."""
        return np.cumsum([0] + [tokens for _, tokens in self._shards])

    def take(self, index: np.ndarray) -> np.ndarray:
        """int32 tokens at the given places of the stream (any shape); every place must lie within it."""
        if len(self._maps) == 1:
            return self._maps[0][index].astype(np.int32)
        shard = np.searchsorted(self._bounds, index, side="right") - 1
        tokens = np.empty(index.shape, np.int32)
        for number in np.unique(shard):
            here = shard == number
            tokens[here] = self._maps[number][index[here] - self._bounds[number]]
        return tokens

    def take_spans(self, starts_B: np.ndarray, length: int) -> np.ndarray:
        """int32 [B, length]: the stream from each place on; zeros beyond its end."""
        spans = np.zeros((len(starts_B), length), np.int32)
        shards_B = np.searchsorted(self._bounds, starts_B, side="right") - 1
        bounds = self._bounds.tolist()
        for span, start, shard in zip(spans, starts_B.tolist(), shards_B.tolist()):
            done = 0
            while done < length and shard < len(self._maps):
                place = start + done - bounds[shard]
                part = self._maps[shard][place : place + length - done]
                span[done : done + len(part)] = part
                done += len(part)
                shard += 1
        return spans

    def document_offsets(self) -> np.ndarray:
        """int64 [num_documents + 1]: document i is the tokens from offsets[i] to offsets[i + 1], its EOS last."""
        return np.load(self.folder / self._offsets_name).astype(np.int64)
