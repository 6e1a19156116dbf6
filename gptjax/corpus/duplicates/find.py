"""Duplicates among the documents of many shards: sketches joined, candidates verified, clusters and drops written."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import scipy.sparse

from gptjax.cluster.cores import available_cores
from gptjax.config import ConfigError
from gptjax.corpus.documents import read_documents
from gptjax.corpus.duplicates.join import Groups, candidate_edges, distinct, equal_keys, pack, unpack
from gptjax.corpus.duplicates.nodes import Documents, Earlier, Nodes, SketchedShard
from gptjax.corpus.duplicates.sketch import Sketch
from gptjax.corpus.duplicates.verify import SetFolder, index_sets, jaccard, unique_shingles, write_sets

SCOPES = ("global", "source")
RESEMBLING = ("kept", "chain")
EDGES_AT_ONCE = 1 << 13  # compared in one call
FEW = 1 << 16  # documents and edges: with less, threads are quicker than the start of processes

KINDS = ("kept", "exact", "near")
CLUSTERS_SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.uint64()),
        ("representative", pyarrow.uint64()),
        ("kind", pyarrow.string()),  # one of KINDS
        ("size", pyarrow.int64()),  # documents in the cluster, including the one kept
        ("jaccard", pyarrow.float32()),  # similarity to the representative; null if not verified
    ]
)
DROPS_SCHEMA = pyarrow.schema(
    [("id", pyarrow.uint64()), ("reason", pyarrow.string()), ("representative", pyarrow.uint64())]
)


@dataclass(frozen=True)
class Search:
    """What counts as a duplicate, and which document is kept.

    Attributes:
      threshold: the smallest Jaccard similarity of near duplicates.
      scope: 'global', or 'source': only documents of one source are compared.
      sources: names in order of precedence; those not named come after them, by name.
      verify: whether candidates are compared exactly, by all their shingles; otherwise one shared band key is enough.
      resembling: which documents of a cluster are removed. 'kept': those that are similar to a document that is kept,
        so that a cluster may keep several. 'chain': all but the representative, even if they are similar to it only
        through a chain of other copies. Without verification it is always 'chain'.
      memory_megabytes: for the join of keys, in addition to two bytes per document and about 100 per document that
        shares a key with another one.
    """

    threshold: float = 0.8
    scope: str = "global"
    sources: tuple[str, ...] = ()
    verify: bool = True
    resembling: str = "kept"
    memory_megabytes: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"duplicates.threshold = {self.threshold}: must be in (0, 1]")
        if self.scope not in SCOPES:
            raise ConfigError(f"duplicates.scope = {self.scope!r}: expected one of {', '.join(SCOPES)}")
        if self.resembling not in RESEMBLING:
            raise ConfigError(f"duplicates.resembling = {self.resembling!r}: expected one of {', '.join(RESEMBLING)}")
        if self.memory_megabytes < 1:
            raise ConfigError(f"duplicates.memory_megabytes = {self.memory_megabytes}: must be at least 1")


def find_duplicates(
    shards: Sequence[SketchedShard],
    folder: Path,
    search: Search,
    earlier: Earlier | None = None,
    parallel: Callable = map,
) -> dict:
    """Writes clusters.parquet (new documents that have copies) and drops.parquet (those of them to leave out).

    The representative of a cluster is the document that an earlier corpus kept, else one of the first source in order,
    else the longest one, else the one with the smallest id. The order of the shards, and how documents are spread over
    them, change nothing. Two documents may be in one cluster only because others link them, so the table has the
    similarity of each to its representative.

    Args:
      folder: where the files go; temporary files go there, too.
      earlier: finished corpora that the new documents are also compared with.
      parallel: `map`, or one that runs on several processes (`concurrent.futures.Executor.map`).

    Returns:
      Counts: documents, candidate and near pairs, clusters, dropped documents by kind. repeated_ids are documents that
      have the id of a kept one: they are not dropped, since a drop by this id would remove both.

    Raises:
      ConfigError: the sketches were made with different options.
    """
    documents = Documents(shards, search.scope, search.sources, earlier)
    with tempfile.TemporaryDirectory(prefix="groups-", dir=folder) as groups:
        nodes, leaders, candidates = _candidates(documents, Path(groups), search.memory_megabytes << 20)
    followers = np.flatnonzero(leaders != np.arange(len(nodes), dtype=np.uint32))
    candidates = candidates[unpack(candidates)[1] >= nodes.first_new]  # earlier pairs have their verdicts
    fixed = [nodes.settled_edges(), pack(leaders[followers], followers)]
    counts = {"documents": len(documents) - documents.first_new}
    if not search.verify:
        cluster = components(np.concatenate([*fixed, candidates]), len(nodes))
        return counts | _write(nodes, cluster, leaders, None, folder) | {"candidate_pairs": len(candidates)}
    with tempfile.TemporaryDirectory(prefix="sets-", dir=folder) as sets:
        near = candidates[_compare(candidates, nodes, search.threshold, Path(sets), parallel) >= search.threshold]
        cluster = components(np.concatenate([*fixed, near]), len(nodes))
        if search.resembling == "kept":
            cluster = _around_kept(cluster, leaders, nodes, search.threshold, Path(sets), parallel)
        # An exact copy is as similar to the representative as the one that was compared in its place.
        new = slice(nodes.first_new, None)
        pairs, pair_of_node = np.unique(pack(cluster[new], leaders[new]), return_inverse=True)
        apart = np.not_equal(*unpack(pairs))
        of_pairs = np.ones(len(pairs), np.float32)
        of_pairs[apart] = _compare(pairs[apart], nodes, 0, Path(sets), parallel)
        similarity = np.ones(len(nodes), np.float32)
        similarity[new] = of_pairs[pair_of_node]
    pairs_found = {"candidate_pairs": len(candidates), "near_pairs": len(near)}
    return counts | _write(nodes, cluster, leaders, similarity, folder) | pairs_found


def _candidates(documents: Documents, folder: Path, memory: int) -> tuple[Nodes, np.ndarray, np.ndarray]:
    """(the documents that share a key with another one; uint32 [nodes], the first of each one's exact copies, which may
    be the document itself; packed edges between documents to compare).

    Keys are joined for rows, and only then is it known which documents are nodes: groups wait in files for their
    numbers.
    """
    total = len(documents)
    exact, near = Groups(folder, "exact"), Groups(folder, "near")
    for members, starts in equal_keys(documents.exact_keys(), total, folder, memory):
        exact.append(members, starts)
    copies, firsts = _exact_copies(documents, exact)
    taking_part, linked = np.ones(total, bool), np.zeros(total, bool)
    taking_part[copies] = False
    for band in range(documents.sketch.bands):
        for members, starts in equal_keys(documents.band_keys(band, taking_part), total, folder, memory):
            near.append(members, starts)
            linked[members] = True
    for rows in (copies, firsts, documents.settled_rows()):
        linked[rows] = True
    nodes = Nodes(documents, np.flatnonzero(linked).astype(np.uint32))
    leaders = np.arange(len(nodes), dtype=np.uint32)
    leaders[nodes.of(copies)] = nodes.of(firsts)
    return nodes, leaders, candidate_edges(nodes.groups(near))


def _exact_copies(documents: Documents, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """uint32 [copies] each: the rows of exact copies, and of the first of each one's group."""
    nothing = np.zeros(0, np.uint32)
    rows = np.sort(np.concatenate([nothing, *(members for members, _ in groups)]))
    ordered = documents.by_precedence(rows)
    rank = np.empty(len(rows), np.uint32)
    rank[np.searchsorted(rows, ordered)] = np.arange(len(rows), dtype=np.uint32)
    copies, firsts = [nothing], [nothing]
    for members, starts in groups:
        if len(members):
            best = np.minimum.reduceat(rank[np.searchsorted(rows, members)], starts)
            first = np.repeat(ordered[best], np.diff(starts, append=len(members)))
            copies.append(members[members != first])
            firsts.append(first[members != first])
    return np.concatenate(copies), np.concatenate(firsts)


def components(edges: np.ndarray, nodes: int) -> np.ndarray:
    """uint32 [nodes]: the smallest node of each node's connected component; its own number where it has no edge."""
    found = np.arange(nodes, dtype=np.uint32)
    if not len(edges):
        return found
    first, second = unpack(edges)
    linked = np.zeros(nodes, bool)
    linked[first] = linked[second] = True
    dense = (np.cumsum(linked) - 1).astype(np.int32)  # number only the linked nodes, so that the graph stays small
    members = np.flatnonzero(linked).astype(np.uint32)
    graph = scipy.sparse.coo_array(
        (np.ones(len(edges), bool), (dense[first], dense[second])), shape=(len(members), len(members))
    )
    count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    least = np.full(count, nodes, np.uint32)
    np.minimum.at(least, labels, members)
    found[members] = least[labels]
    return found


def _around_kept(
    cluster: np.ndarray, leaders: np.ndarray, nodes: Nodes, threshold: float, sets: Path, parallel: Callable
) -> np.ndarray:
    """uint32 [nodes]: the node that stays in each node's place, which is similar to it.

    Of each component, the first node stays, and all go that are similar to it; then the same for those that are left.

    Args:
      cluster: the smallest node of each node's component. leaders: the first of each node's exact copies.
    """
    found = np.where(leaders == np.arange(len(nodes)), np.arange(len(nodes)), leaders).astype(np.uint32)
    linked = np.bincount(cluster, minlength=len(nodes))[cluster] > 1
    left = np.flatnonzero(linked & (found == np.arange(len(nodes))))
    left = left[np.argsort(cluster[left], kind="stable")]
    while len(left):
        _, first, which = np.unique(cluster[left], return_index=True, return_inverse=True)
        kept = left[first][which]  # ascending within a component, so its first
        others = left != kept
        similar = _compare(pack(kept[others], left[others]), nodes, threshold, sets, parallel) >= threshold
        found[left[others][similar]] = kept[others][similar]
        left = left[others][~similar]
    return found[found]  # an exact copy follows the node that it is a copy of


def _compare(edges: np.ndarray, nodes: Nodes, threshold: float, sets: Path, parallel: Callable) -> np.ndarray:
    """float32 [edges]: exact similarities. Shingle sets that `sets` lacks are made from the documents first.

    parallel: for much work; for little, threads are done before processes have started.
    """
    wanted = np.setdiff1d(distinct(np.concatenate(unpack(edges))), SetFolder(sets).nodes, assume_unique=True)
    if len(wanted) + len(edges) < FEW:
        with ThreadPoolExecutor(len(available_cores())) as threads:
            return _compared(edges, wanted, nodes, threshold, sets, threads.map)
    return _compared(edges, wanted, nodes, threshold, sets, parallel)


def _compared(
    edges: np.ndarray, wanted: np.ndarray, nodes: Nodes, threshold: float, sets: Path, parallel: Callable
) -> np.ndarray:
    if work := list(nodes.rows_by_shard(wanted)):
        names = itertools.count(len(list(sets.glob("*.sets"))))
        paths = [sets / f"{number:08d}.sets" for number in itertools.islice(names, len(work))]
        shards, members, rows = zip(*work)
        files = [shard.documents for shard in shards]
        for _ in parallel(_write_shard_sets, paths, files, members, rows, itertools.repeat(nodes.sketch)):
            pass
        index_sets(sets)
    blocks = [edges[start : start + EDGES_AT_ONCE] for start in range(0, len(edges), EDGES_AT_ONCE)]
    found = parallel(_jaccard_in_folder, blocks, itertools.repeat(sets), itertools.repeat(threshold))
    return np.concatenate([np.zeros(0, np.float32), *found])


def _write_shard_sets(path: Path, documents: Path, members: np.ndarray, rows: np.ndarray, sketch: Sketch) -> None:
    """The shingle sets of some rows of one shard, which ascend; members uint32 [rows] are their nodes."""

    def sets() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first_row = 0
        for batch in read_documents(documents, ["text"]):
            here = rows[(rows >= first_row) & (rows < first_row + batch.num_rows)] - first_row
            yield unique_shingles(batch["text"].take(here).to_pylist(), sketch.ngram, sketch.unit)
            first_row += batch.num_rows

    write_sets(path, members, sets())


def _jaccard_in_folder(edges: np.ndarray, folder: Path, threshold: float) -> np.ndarray:
    return jaccard(edges, SetFolder(folder), threshold)


def _write(nodes: Nodes, cluster: np.ndarray, leaders: np.ndarray, similarity: np.ndarray | None, folder: Path) -> dict:
    """Writes both tables: cluster, leaders uint32 [nodes] (the smallest node of each cluster, of each exact group)."""
    sizes = np.bincount(cluster, minlength=1)
    new = np.arange(len(nodes)) >= nodes.first_new
    ids, representatives = nodes.ids, nodes.ids[cluster]
    kept = cluster == np.arange(len(nodes))
    repeated = ~kept & (ids == representatives) & (cluster >= nodes.first_new)
    listed = np.flatnonzero(new & (sizes[cluster] > 1) & ~repeated)
    listed = listed[np.argsort(cluster[listed], kind="stable")]
    kinds = np.where(kept, 0, np.where(leaders == cluster, 1, 2))[listed].astype(np.int8)
    names = pyarrow.DictionaryArray.from_arrays(kinds, list(KINDS)).cast(pyarrow.string())
    columns = {
        "id": ids[listed],
        "representative": representatives[listed],
        "kind": names,
        "size": sizes[cluster[listed]],
        "jaccard": pyarrow.nulls(len(listed), pyarrow.float32()) if similarity is None else similarity[listed],
    }
    pyarrow.parquet.write_table(
        pyarrow.table(columns, CLUSTERS_SCHEMA), folder / "clusters.parquet", compression="zstd"
    )
    dropped = listed[kinds > 0]
    reasons = pyarrow.DictionaryArray.from_arrays(kinds[kinds > 0], ["", "exact duplicate", "near duplicate"])
    columns = {
        "id": ids[dropped],
        "reason": reasons.cast(pyarrow.string()),
        "representative": representatives[dropped],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns, DROPS_SCHEMA), folder / "drops.parquet", compression="zstd")
    clusters = distinct(cluster[listed])
    return {
        "clusters": len(clusters),
        "cluster_sizes": _sizes(sizes[clusters]),
        "exact_dropped": int(np.count_nonzero(kinds == 1)),
        "near_dropped": int(np.count_nonzero(kinds == 2)),
        "repeated_ids": int(np.count_nonzero(repeated)),
    }


def _sizes(sizes: np.ndarray) -> dict[str, int]:
    """Clusters by size, up to a power of two each: '2', '3-4', '5-8' …"""
    doublings, counts = np.unique(np.ceil(np.log2(sizes)).astype(int), return_counts=True)
    names = ("2" if k == 1 else f"{2 ** (k - 1) + 1}-{2**k}" for k in doublings.tolist())
    return dict(zip(names, counts.tolist()))
