"""Repeated passages of the documents of many shards: where each later copy stands, to be reported or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from gptjax.config import ConfigError
from gptjax.corpus.documents import read_documents
from gptjax.corpus.duplicates.exact import paragraph_hashes, paragraph_spans
from gptjax.corpus.duplicates.shingles import shingle_hashes, word_spans
from gptjax.corpus.duplicates.substrings import covered, later_copies, runs

KINDS = ("window", "paragraph", "line")
SEPARATORS = {"paragraph": r"\n\s*\n", "line": r"\n"}
SPANS_SCHEMA = pyarrow.schema([("id", pyarrow.uint64()), ("start", pyarrow.int64()), ("end", pyarrow.int64())])


@dataclass(frozen=True)
class Passages:
    """What is looked for.

    Attributes:
      kind: 'window', any run of `words` words, whatever stands between them; 'paragraph' or 'line', whole ones of at
        least that many words, the same but for white space.
      words: how long.
    """

    kind: str = "window"
    words: int = 50

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(f"passages.kind = {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.words < 1:
            raise ConfigError(f"passages.words = {self.words}: must be at least 1")

    def hashes(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(uint64 [passages], offsets int64 [texts + 1])."""
        if self.kind == "window":
            return shingle_hashes(texts, self.words)
        flat, offsets = paragraph_hashes(texts, SEPARATORS[self.kind])
        long = np.concatenate([self._long(text) for text in [*texts, ""]])
        return flat[long], np.concatenate([[0], np.cumsum(long)])[offsets]

    def spans(self, text: str, later: np.ndarray) -> np.ndarray:
        """int64 [spans, 2]: the characters of the marked passages; later bool [passages of the text]."""
        if self.kind == "window":
            words = word_spans(text)
            places = runs(covered(later, self.words))
            return np.stack([words[places[:, 0], 0], words[places[:, 1] - 1, 1]], axis=1)
        return paragraph_spans(text, SEPARATORS[self.kind])[self._long(text)][later]

    def _long(self, text: str) -> np.ndarray:
        spans = paragraph_spans(text, SEPARATORS[self.kind]).tolist()
        return np.array([len(text[start:end].split()) >= self.words for start, end in spans], bool)


def write_passages(documents: Path, path: Path, passages: Passages) -> dict:
    """Hashes one shard's passages into `path` (.npz), as a pure function of the shard; returns how many there are."""
    flats, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for batch in read_documents(documents, ["text"]):
        flat, offsets = passages.hashes(batch["text"].to_pylist())
        flats.append(flat)
        counts.append(np.diff(offsets))
    np.savez(path, hashes=np.concatenate(flats), counts=np.concatenate(counts))
    return {"passages": sum(map(len, flats))}


def find_passages(
    shards: Sequence[tuple[Path, Path]], folder: Path, passages: Passages, memory_megabytes: int = 512
) -> dict:
    """Writes spans.parquet: the characters of every passage that stands in an earlier document or place, too.

    Args:
      shards: (documents, what write_passages made of them); their order says what is earlier.
      folder: where the table goes; also holds spilled files for the while.

    Returns:
      Counts: passages, later copies among them, documents with any, characters in the spans and in all.
    """
    counts = [_column(path, "counts") for _, path in shards]
    total = sum(int(one.sum()) for one in counts)
    hashes = (_column(path, "hashes") for _, path in shards)
    later = later_copies(hashes, total, folder, memory_megabytes << 20)
    report = {"passages": total, "later_copies": int(np.count_nonzero(later)), "documents": 0, "characters": 0}
    report["characters_in_all"], first = 0, 0
    with pyarrow.parquet.ParquetWriter(folder / "spans.parquet", SPANS_SCHEMA, compression="zstd") as writer:
        for (documents, _), of_shard in zip(shards, counts):
            offsets = first + np.concatenate([[0], np.cumsum(of_shard)])
            number, first = 0, int(offsets[-1])
            for batch in read_documents(documents, ["id", "text"]):
                found = []
                for one, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist()):
                    marks = later[offsets[number] : offsets[number + 1]]
                    number += 1
                    report["characters_in_all"] += len(text)
                    if not marks.any():
                        continue
                    spans = passages.spans(text, marks)
                    found += [{"id": one, "start": start, "end": end} for start, end in spans.tolist()]
                    report["documents"] += 1
                    report["characters"] += int(np.sum(spans[:, 1] - spans[:, 0]))
                writer.write_table(pyarrow.Table.from_pylist(found, SPANS_SCHEMA))
    return report


def _column(path: Path, name: str) -> np.ndarray:
    with np.load(path) as file:
        return file[name]
