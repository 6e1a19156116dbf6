"""The documents of all shards as numbered nodes, with their keys: what the search holds in memory.

Documents are numbered by precedence, so that the representative of a cluster has its smallest number, and nothing
depends on the order in which documents were read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import xxhash

from gptjax.config import ConfigError
from gptjax.corpus.duplicates.join import Chunks, pack
from gptjax.corpus.duplicates.sketch import Sketch, Sketches

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


class Nodes:
    """Documents numbered by precedence, so that earlier ones have the smallest numbers.

    Attributes:
      shards: the earlier ones, then the new ones.
      sketch: how all of them were hashed.
      ids: uint64 [nodes].
      first_new: the number of earlier documents.
    """

    def __init__(self, shards: Sequence[SketchedShard], scope: str, sources: Sequence[str], earlier: Earlier | None):
        before = list(earlier.shards) if earlier else []
        self.shards = [*before, *shards]
        self._sketches = [Sketches(shard.sketches) for shard in self.shards]
        self.sketch = _one_sketch(self._sketches)
        self._scope = scope
        self._offsets = np.cumsum([0, *(sketches.documents for sketches in self._sketches)])
        self.first_new = int(self._offsets[len(before)])
        ids = self._of_all("ids")
        verdicts = [_ids_of_clusters(path) for path in (earlier.clusters if earlier else ())]
        standing = np.full(len(ids), NEW, np.int8)
        standing[: self.first_new] = EARLIER_KEPT
        for members, representatives in verdicts:
            dropped = members[members != representatives]
            standing[: self.first_new][np.isin(ids[: self.first_new], dropped)] = EARLIER_DROPPED
        order = precedence(standing, self._source_ranks(sources), self._of_all("lengths"), ids)
        self.ids = ids[order]
        self._row_of_node = order.astype(np.uint32)
        self._node_of_row = np.empty(len(ids), np.uint32)
        self._node_of_row[order] = np.arange(len(ids), dtype=np.uint32)
        self._verdicts = verdicts

    def __len__(self) -> int:
        return len(self.ids)

    def exact_keys(self) -> Chunks:
        """(hashes, nodes) of all documents, shard by shard; equal for exact copies in scope."""
        for sketches, nodes in self._by_shard():
            yield sketches["exact"] ^ self._salt(sketches), nodes

    def band_keys(self, band: int, taking_part: np.ndarray) -> Chunks:
        """(keys, nodes) of one band, shard by shard, for documents that have shingles and take part (bool [nodes])."""
        for sketches, nodes in self._by_shard():
            chosen = sketches["shingled"] & taking_part[nodes]
            yield (sketches.keys(band) ^ self._salt(sketches))[chosen], nodes[chosen]

    def settled_edges(self) -> np.ndarray:
        """Packed edges from earlier documents to their representatives, as the earlier searches found them."""
        earlier = self.ids[: self.first_new]
        order = np.argsort(earlier)

        def nodes(ids: np.ndarray) -> np.ndarray:
            place = np.minimum(np.searchsorted(earlier, ids, sorter=order), len(order) - 1)
            found = order[place]
            return np.where(earlier[found] == ids, found, -1)

        edges = [np.zeros(0, np.uint64)]
        for members, representatives in self._verdicts if self.first_new else ():
            first, second = nodes(representatives), nodes(members)
            linked = (first >= 0) & (second >= 0) & (first != second)
            edges.append(pack(first[linked], second[linked]))
        return np.concatenate(edges)

    def rows_by_shard(self, nodes: np.ndarray) -> Iterator[tuple[SketchedShard, np.ndarray, np.ndarray]]:
        """(shard, nodes in it, their rows in its Parquet file, ascending) for each shard that holds any of `nodes`."""
        places = self._row_of_node[nodes]
        order = np.argsort(places)
        nodes, places = nodes[order], places[order]
        cuts = np.searchsorted(places, self._offsets)
        for number, (shard, sketches) in enumerate(zip(self.shards, self._sketches)):
            here = slice(cuts[number], cuts[number + 1])
            if here.start < here.stop:
                yield shard, nodes[here], sketches["rows"][places[here] - self._offsets[number]]

    def _by_shard(self) -> Iterator[tuple[Sketches, np.ndarray]]:
        for number, sketches in enumerate(self._sketches):
            yield sketches, self._node_of_row[self._offsets[number] : self._offsets[number + 1]]

    def _of_all(self, name: str) -> np.ndarray:
        return np.concatenate([sketches[name] for sketches in self._sketches])

    def _source_ranks(self, order: Sequence[str]) -> np.ndarray:
        names = {name for sketches in self._sketches for name in sketches.sources}
        ranks = {name: rank for rank, name in enumerate([*order, *sorted(names - set(order))])}
        return self._by_source(lambda name: ranks[name], np.int32)

    def _by_source(self, value: Callable[[str], int], dtype: type) -> np.ndarray:
        return np.concatenate([_values(sketches, value, dtype) for sketches in self._sketches])

    def _salt(self, sketches: Sketches) -> np.ndarray | np.uint64:
        """Makes the keys of one source different from those of others, if sources are not compared."""
        if self._scope == "global":
            return np.uint64(0)
        return _values(sketches, lambda name: xxhash.xxh3_64_intdigest(name.encode()), np.uint64)


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
