"""One shard of documents to one file of what the search for duplicates needs of them, without their text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute

from gptjax.config import ConfigError
from gptjax.corpus.documents import read_documents
from gptjax.corpus.duplicates.exact import exact_hashes
from gptjax.corpus.duplicates.minhash import band_keys, signatures
from gptjax.corpus.duplicates.shingles import UNITS, shingle_hashes


@dataclass(frozen=True)
class Sketch:
    """How documents are hashed. Only sketches with equal fields can be compared.

    Attributes:
      unit, ngram: shingles are runs of `ngram` 'word's or 'character's; a document with fewer has only exact copies.
      bands, rows: what makes a candidate (bands.py: `parameters` chooses them from a threshold). No bands: exact copies
        alone are found.
      seed: of the permutations.
    """

    unit: str = "word"
    ngram: int = 5
    bands: int = 18
    rows: int = 7
    seed: int = 0

    def __post_init__(self):
        if self.unit not in UNITS:
            raise ConfigError(f"duplicates.unit = {self.unit!r}: expected one of {', '.join(UNITS)}")
        for name, least in (("ngram", 1), ("bands", 0), ("rows", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"duplicates.{name} = {getattr(self, name)}: must be at least {least}")


COLUMNS = {
    "ids": np.uint64,
    "exact": np.uint64,
    "lengths": np.int64,
    "rows": np.int64,
    "source_codes": np.int32,
    "shingled": np.bool_,
}


class Sketches:
    """The sketches of a shard's documents, in the shard's order; columns are read when asked for, and not held.

    Columns, each [documents]:
      ids, exact: uint64. lengths: int64, characters. rows: int64, the document's row in its shard.
      source_codes: int32, places in `sources`. shingled: bool, False where there are too few units for a shingle.

    Attributes:
      sketch: how they were made; sources: names; documents: how many.
    """

    def __init__(self, path: Path):
        self.path = path
        header = json.loads(self["header"].tobytes())
        self.sketch = Sketch(**header["sketch"])
        self.sources: list[str] = header["sources"]
        self.documents: int = header["documents"]

    def __getitem__(self, column: str) -> np.ndarray:
        with np.load(self.path) as file:
            return file[column]

    def keys(self, band: int) -> np.ndarray:
        """uint64 [documents]: the keys of one band."""
        return self[_band(band)]


def write_sketches(documents: Path, path: Path, sketch: Sketch, dropped: np.ndarray | None = None) -> dict:
    """Sketches the documents of one Parquet shard into `path` (.npz) and returns how many there are.

    A pure function of the shard: the same bytes whenever and wherever it runs. Holds one row group's text at a time.

    Args:
      documents: Parquet with the columns id, source and text (corpus/documents.py).
      dropped: uint64, ids that are not looked at.
    """
    columns: dict[str, list[np.ndarray]] = {name: [np.zeros(0, dtype)] for name, dtype in COLUMNS.items()}
    keys = [np.zeros((0, sketch.bands), np.uint64)]
    sources: dict[str, int] = {}
    first_row, size = 0, 0
    for batch in read_documents(documents, ["id", "source", "text"]):
        ids = batch["id"].to_numpy()
        kept = np.ones(len(ids), bool) if dropped is None else ~np.isin(ids, dropped)
        rows = np.flatnonzero(kept)
        kept_texts = batch["text"].take(rows)
        texts = kept_texts.to_pylist()
        flat, offsets = shingle_hashes(texts if sketch.bands else [""] * len(texts), sketch.ngram, sketch.unit)
        values = signatures(flat, offsets, sketch.bands * sketch.rows, sketch.seed)
        names = batch["source"].take(rows).to_pylist()
        columns["ids"].append(ids[rows])
        columns["exact"].append(exact_hashes(texts))
        columns["lengths"].append(np.array([len(text) for text in texts], np.int64))
        columns["rows"].append(first_row + rows)
        columns["source_codes"].append(np.array([sources.setdefault(name, len(sources)) for name in names], np.int32))
        columns["shingled"].append(np.diff(offsets) > 0)
        keys.append(band_keys(values, sketch.bands, sketch.rows))
        first_row += len(ids)
        size += pyarrow.compute.sum(pyarrow.compute.binary_length(kept_texts)).as_py() or 0
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    save_sketches(path, sketch, list(sources), joined, np.concatenate(keys))
    return {"documents": len(joined["ids"]), "bytes": size, "too_short": int(np.count_nonzero(~joined["shingled"]))}


def save_sketches(path: Path, sketch: Sketch, sources: list[str], columns: dict[str, np.ndarray], keys: np.ndarray):
    """Writes the columns of Sketches and the keys, uint64 [documents, bands], as one .npz file."""
    header = json.dumps({"sketch": asdict(sketch), "sources": sources, "documents": len(keys)}).encode()
    by_band = {_band(band): keys[:, band] for band in range(sketch.bands)}
    np.savez(path, header=np.frombuffer(header, np.uint8), **columns, **by_band)


def _band(number: int) -> str:
    return f"band_{number:03d}"
