"""Sketches: what the search for duplicates needs to know of each document, without its text; one file per shard.

Exact copies have equal hashes of their text. Near duplicates have similar sets of shingles. MinHash (Broder, 1997)
makes a short signature of a set: the share of places in which two signatures agree estimates the Jaccard similarity of
the sets. Signatures are cut into bands of some rows, and documents that agree in a whole band get the same key for it
(locality-sensitive hashing). So similar documents share some key, with a probability that is an S-curve of their
similarity.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
import xxhash

from gptjax.config import ConfigError
from gptjax.corpus.documents import read_documents
from gptjax.corpus.duplicates.shingles import UNITS, shingle_hashes
from gptjax.data.splitmix import mix

ASCII_SPACE = bytes(code for code in range(128) if chr(code).isspace())
SHINGLES_AT_ONCE = 1 << 16  # shingles permuted at once: they stay in the processor's cache
NO_SHINGLES = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class Sketch:
    """How documents are hashed. Only sketches with equal fields can be compared.

    Attributes:
      unit, ngram: shingles are runs of `ngram` 'word's or 'character's; a document with fewer has only exact copies.
      bands, rows: how signatures are cut (`bands_and_rows` chooses them from a threshold). Without bands only exact
        copies are found.
      seed: the seed of the permutations.
    """

    unit: str = "word"
    ngram: int = 5
    bands: int = 18
    rows: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(f"duplicates.unit = {self.unit!r}: expected one of {', '.join(UNITS)}")
        for name, least in (("ngram", 1), ("bands", 0), ("rows", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"duplicates.{name} = {getattr(self, name)}: must be at least {least}")


SKETCHED = ("id", "source", "text")  # columns of the documents
COLUMNS = {
    "ids": np.uint64,
    "exact": np.uint64,
    "lengths": np.int64,
    "rows": np.int64,
    "source_codes": np.int32,
    "shingled": np.bool_,
}


class Sketches:
    """The sketches of a shard's documents, in the shard's order; a column is read at each access and not kept.

    Columns, each [documents]:
      ids, exact: uint64. lengths: int64, characters. rows: int64, the document's row in its shard.
      source_codes: int32, places in `sources`. shingled: bool, False if there are too few units for a shingle.

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


def write_sketches(
    documents: Path | Iterable[pyarrow.RecordBatch], path: Path, sketch: Sketch, dropped: np.ndarray | None = None
) -> dict:
    """Sketches the documents of one Parquet shard into `path` (.npz) and returns how many there are.

    A pure function of the shard: the same bytes whenever and wherever it runs. Holds one row group's text at a time.

    Args:
      documents: Parquet with the columns id, source and text (corpus/documents.py), or what is read from it.
      dropped: uint64, ids to leave out.
    """
    columns: dict[str, list[np.ndarray]] = {name: [np.zeros(0, dtype)] for name, dtype in COLUMNS.items()}
    keys = [np.zeros((0, sketch.bands), np.uint64)]
    sources: dict[str, int] = {}
    first_row, size = 0, 0
    for batch in read_documents(documents, SKETCHED) if isinstance(documents, Path) else documents:
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


def save_sketches(
    path: Path, sketch: Sketch, sources: list[str], columns: dict[str, np.ndarray], keys: np.ndarray
) -> None:
    """Writes the columns of Sketches and the keys, uint64 [documents, bands], as one .npz file."""
    header = json.dumps({"sketch": asdict(sketch), "sources": sources, "documents": len(keys)}).encode()
    by_band = {_band(band): keys[:, band] for band in range(sketch.bands)}
    arrays: dict[str, Any] = {"header": np.frombuffer(header, np.uint8), **columns, **by_band}
    np.savez(path, **arrays)


def _band(number: int) -> str:
    return f"band_{number:03d}"


# --- Exact copies ----------------------------------------------------------------------------------------------------


def exact_hashes(texts: Sequence[str]) -> np.ndarray:
    """uint64 [texts]: xxh3-64 of the text in NFC without any white space.

    Two different texts among N share a hash with probability N² / 2⁶⁵: 3 % for a billion documents.
    """
    return np.fromiter((text_hash(text) for text in texts), np.uint64, len(texts))


def text_hash(text: str) -> int:
    if text.isascii():
        return xxhash.xxh3_64_intdigest(text.encode().translate(None, ASCII_SPACE))
    joined = "".join(unicodedata.normalize("NFC", text).split())
    return xxhash.xxh3_64_intdigest(joined.encode("utf-8", "surrogatepass"))


# --- MinHash and bands -----------------------------------------------------------------------------------------------


def signatures(flat: np.ndarray, offsets: np.ndarray, permutations: int, seed: int = 0) -> np.ndarray:
    """MinHash signatures under the permutations h → a h + b mod 2³², a odd, of the upper halves of the hashes.

    Args:
      flat: uint64 [shingles], mixed hashes; offsets: int64 [documents + 1].

    Returns:
      uint32 [documents, permutations]; all ones (4,294,967,295) for a document without shingles.
    """
    rng = np.random.default_rng(seed)
    multipliers = rng.integers(0, 1 << 32, permutations, np.uint32) | np.uint32(1)
    addends = rng.integers(0, 1 << 32, permutations, np.uint32)
    filled = np.flatnonzero(np.diff(offsets))
    starts, ends = offsets[:-1][filled], offsets[1:][filled]
    least = np.full((permutations, len(filled)), NO_SHINGLES)
    buffer = np.empty(SHINGLES_AT_ONCE, np.uint32)
    for start in range(0, len(flat), SHINGLES_AT_ONCE):
        hashes = (flat[start : start + SHINGLES_AT_ONCE] >> np.uint64(32)).astype(np.uint32)
        permuted = buffer[: len(hashes)]
        # Documents with shingles in this chunk; a long document continues in the next one.
        first, last = np.searchsorted(ends, start, "right"), np.searchsorted(starts, start + SHINGLES_AT_ONCE, "left")
        inner = np.maximum(starts[first:last] - start, 0)
        for k in range(permutations):
            np.multiply(hashes, multipliers[k], out=permuted)
            np.add(permuted, addends[k], out=permuted)
            here = least[k, first:last]
            np.minimum(here, np.minimum.reduceat(permuted, inner), out=here)
    found = np.full((len(offsets) - 1, permutations), NO_SHINGLES)
    found[filled] = least.T
    return found


def band_keys(signatures_DK: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """uint64 [documents, bands]: equal if documents agree in all `rows` values of a band; no two bands share a key."""
    if bands * rows > signatures_DK.shape[1]:
        raise ValueError(f"{bands} bands of {rows} rows need {bands * rows} values, not {signatures_DK.shape[1]}")
    values_DBR = signatures_DK[:, : bands * rows].reshape(len(signatures_DK), bands, rows)
    keys = np.tile(mix(np.arange(1, bands + 1, dtype=np.uint64)), (len(signatures_DK), 1))
    for row in range(rows):
        keys ^= values_DBR[:, :, row]
        mix(keys)
    return keys


def probability(jaccard: np.ndarray | float, bands: int, rows: int) -> np.ndarray:
    """1 - (1 - Jʳ)ᵇ: that two documents of Jaccard similarity J share at least one key."""
    return 1 - (1 - np.asarray(jaccard, float) ** rows) ** bands


def bands_and_rows(threshold: float, permutations: int = 128, recall: float = 0.98) -> tuple[int, int]:
    """(bands, rows) with the most rows, hence fewest false candidates, that still find a pair of similarity
    `threshold` with probability `recall`. False candidates cost little, since they are verified; a missed pair is lost.

    Raises:
      ConfigError: this number of permutations cannot reach `recall`.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if probability(threshold, bands, rows) >= recall:
            return bands, rows
    raise ConfigError(
        f"duplicates.permutations = {permutations}: too few to find {recall:.0%} of the pairs of similarity "
        f"duplicates.threshold = {threshold}"
    )
