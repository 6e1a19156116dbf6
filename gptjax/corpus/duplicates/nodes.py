"""The documents of all shards with their keys, and as numbered nodes those that share a key with another one.

Nodes are numbered by precedence, so that the representative of a cluster has its smallest number, and nothing depends
on the order in which documents were read. Only nodes are held in memory; columns of all documents are read by shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import xxhash

from gptjax.config import ConfigError
from gptjax.corpus.duplicates.join import Chunks, pack
from gptjax.corpus.duplicates.sketch import COLUMNS, Sketch, Sketches

EARLIER_KEPT, EARLIER_DROPPED, NEW = range(3)


@dataclass(frozen=True)
class SketchedShard:
    documents: Path  # Parquet; read again only for verification
    sketches: Path  # by sketch.write_sketches


@dataclass(frozen=True)
class Earlier:
    """Finished corpora: their documents keep their verdicts, and new copies of them are dropped.

    Attributes:
      shards: those of all these corpora; clusters: the clusters.parquet of each corpus.
    """

    shards: Sequence[SketchedShard]
    clusters: Sequence[Path]


class Documents:
    """All documents, numbered in the order of the shards: rows. Columns are read when they are needed, by shard.

    Attributes:
      shards: the earlier ones, then the new ones.
      sketch: how all of them were hashed.
      first_new: the number of earlier documents.
      verdicts: (ids, ids of their representatives) of each earlier corpus.
    """

    def __init__(self, shards: Sequence[SketchedShard], scope: str, sources: Sequence[str], earlier: Earlier | None):
        before = list(earlier.shards) if earlier else []
        self.shards = [*before, *shards]
        self._sketches = [Sketches(shard.sketches) for shard in self.shards]
        self.sketch = _one_sketch(self._sketches)
        self._scope = scope
        self._offsets = np.cumsum([0, *(sketches.documents for sketches in self._sketches)])
        self.first_new = int(self._offsets[len(before)])
        self.verdicts = [_ids_of_clusters(path) for path in (earlier.clusters if earlier else ())]
        names = {name for sketches in self._sketches for name in sketches.sources}
        self._ranks = {name: rank for rank, name in enumerate([*sources, *sorted(names - set(sources))])}

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def exact_keys(self) -> Chunks:
        """(hashes, rows) of all documents, shard by shard; equal for exact copies in scope."""
        for sketches, rows in self._by_shard():
            yield sketches["exact"] ^ self._salt(sketches), rows

    def band_keys(self, band: int, taking_part: np.ndarray) -> Chunks:
        """(keys, rows) of one band, shard by shard, for documents with shingles that take part (bool [documents])."""
        for sketches, rows in self._by_shard():
            chosen = sketches["shingled"] & taking_part[rows]
            yield (sketches.keys(band) ^ self._salt(sketches))[chosen], rows[chosen]

    def column(self, rows: np.ndarray, name: str) -> np.ndarray:
        """A column of some rows, which ascend."""
        return self._of_rows(rows, lambda sketches: sketches[name], COLUMNS[name])

    def by_precedence(self, rows: np.ndarray) -> np.ndarray:
        """These rows, which ascend, in the order of `precedence`."""
        ids = self.column(rows, "ids")
        standing = np.full(len(rows), NEW, np.int8)
        earlier = np.searchsorted(rows, self.first_new)
        standing[:earlier] = EARLIER_KEPT
        for members, representatives in self.verdicts:
            dropped = members[members != representatives]
            standing[:earlier][np.isin(ids[:earlier], dropped)] = EARLIER_DROPPED
        ranks = self._of_rows(rows, lambda sketches: _values(sketches, self._ranks.__getitem__, np.int32), np.int32)
        return rows[precedence(standing, ranks, self.column(rows, "lengths"), ids)]

    def settled_rows(self) -> np.ndarray:
        """The rows of earlier documents that have copies, as the earlier searches found them."""
        listed = [ids for verdict in self.verdicts for ids in verdict]
        known = np.unique(np.concatenate([np.zeros(0, np.uint64), *listed]))
        found = [np.zeros(0, np.uint32)]
        for sketches, rows in self._by_shard():
            if len(rows) and rows[0] < self.first_new:
                found.append(rows[np.isin(sketches["ids"], known)])
        return np.concatenate(found)

    def places(self, rows: np.ndarray) -> Iterator[tuple[SketchedShard, slice, np.ndarray]]:
        """(shard, which of `rows` it holds, their rows in its Parquet file) for rows that ascend."""
        for number, here, within in self._cut(rows):
            yield self.shards[number], here, self._sketches[number]["rows"][within]

    def _by_shard(self) -> Iterator[tuple[Sketches, np.ndarray]]:
        for sketches, start, end in zip(self._sketches, self._offsets[:-1], self._offsets[1:]):
            yield sketches, np.arange(start, end, dtype=np.uint32)

    def _cut(self, rows: np.ndarray) -> Iterator[tuple[int, slice, np.ndarray]]:
        """(number of the shard, which of `rows` it holds, their places in it) for each shard that holds any."""
        cuts = np.searchsorted(rows, self._offsets)
        for number, (start, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist())):
            if start < end:
                yield number, slice(start, end), rows[start:end].astype(np.int64) - self._offsets[number]

    def _of_rows(self, rows: np.ndarray, column: Callable[[Sketches], np.ndarray], dtype: type) -> np.ndarray:
        found: np.ndarray = np.empty(len(rows), dtype)
        for number, here, within in self._cut(rows):
            found[here] = column(self._sketches[number])[within]
        return found

    def _salt(self, sketches: Sketches) -> np.ndarray | np.uint64:
        """Makes the keys of one source different from those of others, if sources are not compared."""
        if self._scope == "global":
            return np.uint64(0)
        return _values(sketches, lambda name: xxhash.xxh3_64_intdigest(name.encode()), np.uint64)


class Nodes:
    """The documents that share a key with another one, numbered by precedence: earlier ones have the smallest numbers.

    Attributes:
      sketch: that of the documents.
      ids: uint64 [nodes].
      first_new: the number of earlier documents among them.
    """

    def __init__(self, documents: Documents, rows: np.ndarray):
        """rows: uint32, ascending."""
        self._documents, self._rows = documents, rows
        self.sketch = documents.sketch
        self.first_new = int(np.searchsorted(rows, documents.first_new))
        self._row_of_node = documents.by_precedence(rows)
        places = np.searchsorted(rows, self._row_of_node)
        self.ids = documents.column(rows, "ids")[places]
        self._node_of_place = np.empty(len(rows), np.uint32)
        self._node_of_place[places] = np.arange(len(rows), dtype=np.uint32)

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """uint32: the nodes of some rows."""
        return self._node_of_place[np.searchsorted(self._rows, rows)]

    def groups(self, of_rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Groups of rows as groups of nodes, which ascend within each."""
        for members, starts in of_rows:
            nodes = self.of(members)
            group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(members)))
            yield nodes[np.lexsort((nodes, group))], starts

    def settled_edges(self) -> np.ndarray:
        """Packed edges from earlier documents to their representatives, as the earlier searches found them."""
        earlier = self.ids[: self.first_new]
        order = np.argsort(earlier, kind="stable")

        def nodes(ids: np.ndarray) -> np.ndarray:
            place = np.minimum(np.searchsorted(earlier, ids, sorter=order), len(order) - 1)
            found = order[place]
            return np.where(earlier[found] == ids, found, -1)

        edges = [np.zeros(0, np.uint64)]
        for members, representatives in self._documents.verdicts if self.first_new else ():
            first, second = nodes(representatives), nodes(members)
            linked = (first >= 0) & (second >= 0) & (first != second)
            edges.append(pack(first[linked], second[linked]))
        return np.concatenate(edges)

    def rows_by_shard(self, nodes: np.ndarray) -> Iterator[tuple[SketchedShard, np.ndarray, np.ndarray]]:
        """(shard, nodes in it, their rows in its Parquet file, ascending) for each shard that holds any of `nodes`."""
        rows = self._row_of_node[nodes]
        order = np.argsort(rows)
        nodes = nodes[order]
        for shard, here, in_file in self._documents.places(rows[order]):
            yield shard, nodes[here], in_file


def precedence(earlier: np.ndarray, source_ranks: np.ndarray, lengths: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """int64 [documents]: documents by precedence.

    What an earlier corpus has kept comes first, then the sources in their order, then the longest, then the smallest
    id. All arguments are [documents]; `earlier` is 0 for documents kept earlier, 1 for new ones, 2 for those dropped
    earlier.
    """
    return np.lexsort((ids, -lengths.astype(np.int64), source_ranks, earlier))


def _values(sketches: Sketches, value: Callable[[str], int], dtype: type) -> np.ndarray:
    return np.array([value(name) for name in sketches.sources], dtype)[sketches["source_codes"]]


def _one_sketch(all_sketches: list[Sketches]) -> Sketch:
    """The sketch that all files were made with."""
    first = all_sketches[0]
    for other in all_sketches[1:]:
        if other.sketch != first.sketch:
            raise ConfigError(
                f"duplicates: {first.path.name} was made with {first.sketch}, {other.path.name} with {other.sketch}: "
                "sketch one of the corpora again"
            )
    return first.sketch


def _ids_of_clusters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pyarrow.parquet.read_table(path, columns=["id", "representative"])
    return table["id"].to_numpy(), table["representative"].to_numpy()
