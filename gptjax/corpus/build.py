"""A corpus to a prepared folder, in two passes over its documents: survey them, then encode and write them.

The survey counts what there is, so that a corpus that cannot be split is refused before hours of encoding, and takes
the sample that a tokenizer learns from. Neither pass holds more than some documents in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gptjax.config import ConfigError
from gptjax.corpus.readers import Reader
from gptjax.corpus.shards import ShardWriter, Splitter
from gptjax.corpus.tokenizer import Tokenizer
from gptjax.corpus.tokenizer_training import TextSample

BATCH_CHARACTERS = 1 << 22  # text that is encoded at once
BATCH_DOCUMENTS = 1 << 12


@dataclass
class Survey:
    """What a corpus holds, by split; and what a vocabulary is learned from: its training split alone."""

    documents: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    sample: TextSample | None = None
    characters: Counter[str] | None = None


Progress = Callable[[int, int], None]  # told of documents and bytes of text as they are done


def survey(reader: Reader, splitter: Splitter, into: Survey, progress: Progress) -> Survey:
    """Reads the corpus once; fills `into.sample` or `into.characters` where it has them.

    Raises:
      ConfigError: a split would be empty.
    """
    for document in reader:
        for split, text in splitter(document.text):
            size = len(text.encode())
            into.documents[split] += 1
            into.bytes[split] += size
            progress(1, size)
            if split == "train" and into.sample is not None:
                into.sample.add(text)
            if split == "train" and into.characters is not None:
                into.characters.update(text)
    for split in splitter.splits:
        if not into.documents[split]:
            raise ConfigError(_empty_split(split, into, reader))
    return into


def _empty_split(split: str, found: Survey, reader: Reader) -> str:
    total = found.documents.total()
    if not total:
        skipped = ", ".join(f"{reason}: {count}" for reason, count in reader.skipped.items())
        return f"input: no document in {len(reader.files)} files ({skipped})"
    return (
        f"the {split} split would be empty: {total} document{'s' * (total > 1)} in all; --split_by=tail holds out the "
        "end of every document, --document_separator cuts files into documents, --validation_fraction sets the share"
    )


def encode(
    reader: Reader, splitter: Splitter, tokenizer: Tokenizer, folder: Path, shard_tokens: int, progress: Progress
) -> dict[str, dict]:
    """Reads the corpus again and writes each split's shards; returns the manifest sections by split."""
    writers = {split: ShardWriter(folder, split, tokenizer.vocab_size, shard_tokens) for split in splitter.splits}
    size, unknown = Counter(), Counter()
    parts = (part for document in reader for part in splitter(document.text))
    end = np.array([tokenizer.eos_id], np.int32)
    for batch, arrays in _ahead(lambda batch: tokenizer.encode_batch([text for _, text in batch]), _batches(parts)):
        batch_size = 0
        for split, writer in writers.items():
            writer.append([np.append(ids, end) for (where, _), ids in zip(batch, arrays) if where == split])
        for (split, text), ids in zip(batch, arrays):
            text_size = len(text.encode())
            size[split] += text_size
            batch_size += text_size
            if tokenizer.unk_id is not None:
                unknown[split] += int(np.count_nonzero(ids == tokenizer.unk_id))
        progress(len(batch), batch_size)
    return {
        split: {**writer.close(), "bytes": size[split], "unknown_tokens": unknown[split]}
        for split, writer in writers.items()
    }


def _batches(parts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch, characters = [], 0
    for split, text in parts:
        batch.append((split, text))
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _ahead(function: Callable, items: Iterable) -> Iterator[tuple]:
    """(item, function(item)) in order; while one result is used and the next item read, the next result is made."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        pending = None
        for item in items:
            following = (item, executor.submit(function, item))
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = following
        if pending is not None:
            yield pending[0], pending[1].result()
