"""The tokens of one split of a prepared folder, whose shards are read as one stream."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.prepared import SUPERVISED, check_files, read_manifest, split_files
from gptjax.data.watched import WatchedFiles

_DENSE = 4  # numbers of a file are read at once if they are at least every fourth one


class TokenSource:
    """The token stream of a split and the ends of its documents, checked on opening and watched while it is read.

    Every document starts after a begin token. If the begin token is EOS, it is the EOS of the previous document; for
    the first document, it is at place -1, which is in no file. If the begin token is BOS, it is the document's own
    first token.

    Pickling keeps only file names: each loader process opens the files itself.

    Attributes:
      split: 'train' or 'validation'.
      num_tokens: tokens in the stream, over all shards and documents, including EOS.
      num_documents: documents of the stream.
      num_targets: tokens to predict: all but BOS, which is never predicted.
      vocab_size, eos_id, tokenizer_hash: those of the tokenizer that made the tokens.
      form: that of the documents, one of prepared.FORMS.
      labels: names of the labels of labelled texts.
      template: the fields of the chat template of conversations; empty for other forms.
      source_vocab_size, source_eos_id: those of the tokenizer for the sources of pairs; has_two_vocabularies: whether
        it is their own.
      begin_id: the token before the first of a document's text: EOS or BOS.
      own_begin: 1 if each document begins with its own BOS, which is not part of its text; otherwise 0.
      files: the split's entries (name, size, hash) in the manifest.
    """

    def __init__(self, folder: str | Path, split: str, verify: bool = True):
        """Raises ConfigError if the folder or the split is missing, or a file differs from the manifest."""
        self.folder, self.split = Path(folder), split
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise ConfigError(
                f"data.path = {str(folder)!r}: has no {split} split, only {', '.join(manifest['splits'])}"
            )
        self.files = split_files(manifest, split)
        check_files(folder, self.files, verify)
        section, made = manifest["splits"][split], manifest["tokenizer"]
        self.vocab_size: int = made["vocab_size"]
        self.eos_id: int = made["eos_id"]
        self.begin_id: int = made["begin_id"]
        self.tokenizer_hash: str = made["hash"]
        self.form: str = manifest.get("form", "text")
        self.labels: list[str] = manifest.get("labels", [])
        of_sources = manifest.get("source_tokenizer", made)
        self.source_vocab_size: int = of_sources["vocab_size"]
        self.source_eos_id: int = of_sources["eos_id"]
        self.source_tokenizer_hash: str = of_sources["hash"]
        self.has_two_vocabularies = "source_tokenizer" in manifest
        self.own_begin = int(self.begin_id != self.eos_id)
        self.num_tokens: int = section["tokens"]
        self.num_documents: int = section["documents"]
        self.num_targets: int = self.num_tokens - self.own_begin * self.num_documents
        self._dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        self._shards = [shard["name"] for shard in section["shards"]]
        # Shard i holds the places from bounds[i] to bounds[i + 1].
        self._bounds = list(itertools.accumulate((shard["tokens"] for shard in section["shards"]), initial=0))
        self._offsets_name = section["offsets"]["name"]
        self.offsets_hash: str = section["offsets"]["hash"]
        self.template: dict = manifest.get("template", {})
        bits = section["supervised"] if self.form in SUPERVISED else {"name": "", "hash": ""}
        self._supervised_name: str = bits["name"]
        self.supervised_hash: str = bits["hash"]
        self._labels_name = section["labels"]["name"] if self.form == "labelled" else ""
        others = filter(None, [self._supervised_name, self._offsets_name, self._labels_name])
        self._watched = WatchedFiles(self.folder, [*self._shards, *others])
        self._check_documents(self.num_documents)

    def _check_documents(self, documents: int) -> None:
        """Raises ConfigError if the offsets do not match the stream, or if the stream does not begin with BOS although
        it should."""
        path = self.folder / self._offsets_name
        try:
            offsets = self.document_offsets()
            fits = offsets.dtype == np.uint64 and offsets.shape == (documents + 1,)
            fits = fits and (int(offsets[0]), int(offsets[-1])) == (0, self.num_tokens)
        except (OSError, ValueError):
            fits = False
        if not fits:
            raise ConfigError(
                f"{path}: must hold {documents + 1} offsets from 0 to {self.num_tokens}, as the manifest says: prepare "
                "the folder again"
            )
        if documents % {"pairs": 2, "preferences": 4, "chat_preferences": 2}.get(self.form, 1):
            raise ConfigError(f"{self.folder}: {documents} documents are no {self.form}: prepare the folder again")
        if self.form == "labelled":
            self._check_labels(documents)
        if self.own_begin and documents and self.take_runs(np.array([0]), np.array([1]))[0] != self.begin_id:
            raise ConfigError(
                f"{self.folder}: the manifest says that documents begin with token {self.begin_id}, but the first does "
                "not: prepare the folder again"
            )

    def _check_labels(self, documents: int) -> None:
        labels = self.document_labels()
        fits = labels.dtype == np.int32 and labels.shape == (documents,)
        if not fits or (documents and not 0 <= labels.min() <= labels.max() < len(self.labels)):
            raise ConfigError(
                f"{self.folder / self._labels_name}: must hold {documents} numbers of labels below {len(self.labels)}: "
                "prepare the folder again"
            )

    def document_labels(self) -> np.ndarray:
        """int32 [num_documents], memory-mapped, to be read before training: the number of each document's label; only
        of labelled texts."""
        return np.load(self.folder / self._labels_name, mmap_mode="r")

    def take_runs(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """int32 [sum of lengths]: the parts of the stream that begin at `starts`; place -1 is the begin token.

        Raises:
          IndexError: a part exceeds the stream.
          RunError: a shard has changed since it was opened.
        """
        tokens = np.empty(int(lengths.sum()), self._dtype)
        as_bytes, itemsize = tokens.view(np.uint8).data, self._dtype.itemsize
        done = 0
        for start, length in zip(starts.tolist(), lengths.tolist()):
            if start < -1 or start + length > self.num_tokens:
                raise IndexError(f"places {start} to {start + length}: the stream has places 0 to {self.num_tokens}")
            end = done + length
            if start < 0 < length:
                tokens[done] = self.begin_id
                start, done = 0, done + 1
            shard = bisect.bisect_right(self._bounds, start) - 1
            while done < end:
                part = min(end - done, self._bounds[shard + 1] - start)
                offset = (start - self._bounds[shard]) * itemsize
                where = as_bytes[done * itemsize : (done + part) * itemsize]
                self._watched.read_into(self._shards[shard], offset, where)
                start, done, shard = start + part, done + part, shard + 1
        return tokens.astype(np.int32)

    def take_supervised(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """bool [sum of lengths]: whether the assistant wrote each token of these parts; only of SUPERVISED forms.

        Raises:
          RunError: the file has changed since it was opened.
        """
        parts = [np.zeros(0, bool)]
        for start, length in zip(starts.tolist(), lengths.tolist()):
            first, last = start // 8, -(-(start + length) // 8)
            read = np.empty(last - first, np.uint8)
            self._watched.read_into(self._supervised_name, first, read.data)
            bits = np.unpackbits(read, bitorder="little").astype(bool)
            parts.append(bits[start - 8 * first : start - 8 * first + length])
        return np.concatenate(parts)

    def offsets_of(self, index: np.ndarray) -> np.ndarray:
        """int64: these of the `document_offsets`, read without a memory map. Raises as `take_runs`."""
        return self._numbers(self._offsets_name, np.dtype("<u8"), self.num_documents + 1, index).astype(np.int64)

    def labels_of(self, index: np.ndarray) -> np.ndarray:
        """int32: these of the `document_labels`, read without a memory map. Raises as `take_runs`."""
        return self._numbers(self._labels_name, np.dtype("<i4"), self.num_documents, index)

    def _numbers(self, name: str, dtype: np.dtype, count: int, index: np.ndarray) -> np.ndarray:
        """Some numbers of an array's file, which holds `count` of them after its header."""
        if not index.size:
            return np.empty(0, dtype)
        first, last = int(index.min()), int(index.max())
        if first < 0 or last >= count:
            raise IndexError(f"numbers {first} to {last}: {name} has {count}")
        header = self._watched.size_of(name) - count * dtype.itemsize

        def read(start: int, length: int) -> np.ndarray:
            values = np.empty(length, dtype)
            self._watched.read_into(name, header + start * dtype.itemsize, values.view(np.uint8).data)
            return values

        if last - first < _DENSE * index.size:
            return read(first, last - first + 1)[index - first]
        return np.concatenate([read(number, 1) for number in index.tolist()])

    def document_offsets(self) -> np.ndarray:
        """uint64 [num_documents + 1], memory-mapped, to be read before training: document i is the tokens offsets[i] to
        offsets[i + 1], its EOS last."""
        return np.load(self.folder / self._offsets_name, mmap_mode="r")
