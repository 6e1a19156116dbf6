"""Makes sketches of documents, shard by shard, and from all sketches a verdict on every document with copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptjax.cluster.cores import available_cores
from gptjax.config import ConfigError
from gptjax.corpus.duplicates.find import Search, find_duplicates
from gptjax.corpus.duplicates.join import equal_keys
from gptjax.corpus.duplicates.nodes import Earlier, SketchedShard
from gptjax.corpus.duplicates.processes import Processes
from gptjax.corpus.duplicates.sketch import SKETCHED, Sketch, Sketches, bands_and_rows, write_sketches
from gptjax.corpus.engine import Task
from gptjax.corpus.engine.journal import rows_set_aside
from gptjax.corpus.manifest import WORK
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.stages.documents import batches
from gptjax.corpus.stages.verdicts import write_verdicts
from gptjax.data.prepared import MANIFEST, read_manifest
from gptjax.files.paths import local_path

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus, DocumentShard

REPEATED = "exact duplicate"  # the same document from the same place, a second time


def sketch(task: Task, folder: Path) -> dict:
    """inputs: documents, verdicts. options: fields of Sketch."""
    tables = [pq.read_table(task.path(entry), columns=["id", "reason"]) for entry in task.inputs["verdicts"]]
    out = [table.filter(pc.not_equal(table["reason"], ""))["id"].to_numpy() for table in tables]
    if rows := rows_set_aside(task.journal):
        ids = pq.read_table(task.path(task.inputs["documents"]), columns=["id"])["id"].to_numpy()
        out.append(ids[sorted(rows)])
    dropped = np.concatenate(out) if out else None
    documents = (batch for _, batch in batches(task, SKETCHED))
    return write_sketches(documents, folder / "sketches.npz", Sketch(**task.options), dropped)


def find_copies(task: Task, folder: Path) -> dict:
    """Writes clusters.parquet and, for each shard, verdicts-NNNNN.parquet.

    inputs: shards: [documents, sketches] of each; earlier: the same of finished corpora (earlier_inputs), and clusters:
    a file for each corpus. options: fields of Search.

    If copies are only searched within a source, a second search over all sources finds the documents that the split
    must keep together.
    """
    shards, before = (
        [SketchedShard(task.path(documents), task.path(sketches)) for documents, sketches in given["shards"]]
        for given in (task.inputs, task.inputs["earlier"])
    )
    earlier = Earlier(before, [task.path(entry) for entry in task.inputs["earlier"]["clusters"]]) if before else None
    options = {**task.options, "sources": tuple(task.options["sources"])}
    with Processes(len(available_cores())) as pool:
        report = _found(task, folder, shards, Search(**options), earlier, pool)
    (folder / "drops.parquet").unlink()
    return report


def _found(
    task: Task, folder: Path, shards: list[SketchedShard], search: Search, earlier: Earlier | None, pool: Processes
) -> dict:
    report = find_duplicates(shards, folder, search, earlier, pool.map)
    drops = pq.read_table(folder / "drops.parquet").sort_by("id")
    clusters = pq.read_table(folder / "clusters.parquet", columns=["id", "representative"])
    if search.scope != "global":
        together = folder / "together"
        together.mkdir()
        find_duplicates(shards, together, dataclasses.replace(search, scope="global"), earlier, pool.map)
        clusters = pq.read_table(together / "clusters.parquet", columns=["id", "representative"])
        for path in together.iterdir():
            path.unlink()
        together.rmdir()
    repeated = _repeated_ids(shards, folder, search.memory_megabytes << 20)
    _write_verdicts(folder, shards, drops, clusters.sort_by("id"), repeated)
    return report


def _write_verdicts(
    folder: Path, shards: list[SketchedShard], drops: pa.Table, clusters: pa.Table, repeated: np.ndarray
) -> None:
    """Every document in a cluster, by its row: an id may occur twice in a source, and then only the first may stay."""
    reasons = drops["reason"].combine_chunks()
    met = np.zeros(0, np.uint64)
    for number, shard in enumerate(shards):
        sketches = Sketches(shard.sketches)
        ids = sketches["ids"]
        drop, dropped = _places(drops, ids)
        cluster, clustered = _places(clusters, ids)
        again = np.isin(ids, repeated) & ~dropped
        first_here = np.zeros(len(ids), bool)
        first_here[np.unique(ids, return_index=True)[1]] = True
        again_out = again & (np.isin(ids, met) | ~first_here)
        met = np.union1d(met, ids[again])
        reason = np.full(len(ids), "", object)
        reason[dropped] = reasons.take(pa.array(drop[dropped])).to_pylist()
        reason[again_out] = REPEATED
        representative = np.where(again, ids, np.uint64(0))
        representative[clustered] = clusters["representative"].to_numpy()[cluster[clustered]]
        concerned = np.flatnonzero(dropped | clustered | again)
        write_verdicts(
            folder / f"verdicts-{number:05d}.parquet",
            sketches["rows"][concerned],
            ids[concerned],
            reason[concerned],
            representative[concerned],
        )


def _places(table: pa.Table, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each id's place in a table sorted by id, and whether the table has it."""
    known = table["id"].to_numpy()
    if not len(known):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return place, known[place] == ids


def _repeated_ids(shards: list[SketchedShard], folder: Path, memory: int) -> np.ndarray:
    """Ids that more than one row has, over all shards, ascending."""
    total = sum(Sketches(shard.sketches).documents for shard in shards)
    ids = (Sketches(shard.sketches)["ids"] for shard in shards)
    # The groups are of equal keys, and a key's member is the id itself.
    found = [members[starts] for members, starts in equal_keys(((one, one) for one in ids), total, folder, memory)]
    return np.sort(np.concatenate([np.zeros(0, np.uint64), *found]))


class SketchDocuments(CorpusStage):
    """The data about every document from which copies are found."""

    name, function = "sketch", staticmethod(sketch)

    def check(self, corpus: Corpus) -> None:
        corpus.earlier = earlier_inputs(corpus.config.duplicates.earlier, self.options(corpus))

    def is_wanted(self, corpus: Corpus) -> bool:
        return corpus.config.duplicates.kind != "none"

    def options(self, corpus: Corpus) -> dict[str, Any]:
        search = corpus.config.duplicates
        near = search.kind == "near"
        bands, rows = bands_and_rows(search.threshold, search.permutations) if near else (0, 1)
        return {"unit": search.unit, "ngram": search.ngram, "bands": bands, "rows": rows, "seed": corpus.config.seed}

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        for shard, result in zip(corpus.shards, results):
            shard.files["sketch"] = {"documents": shard.documents, **result["files"]}


class FindCopies(CorpusStage):
    """Verdicts on documents that are copies of others: one task over all sketches."""

    name, version, function = "copies", 3, staticmethod(find_copies)

    def is_wanted(self, corpus: Corpus) -> bool:
        return corpus.config.duplicates.kind != "none"

    def options(self, corpus: Corpus) -> dict[str, Any]:
        search = corpus.config.duplicates
        options = {name: search[name] for name in ("threshold", "scope", "verify", "resembling", "memory_megabytes")}
        return {**options, "sources": [source.name for source in corpus.config.sources]}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return [{"shards": _sketched(corpus), "earlier": corpus.earlier}], [0]

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        (found,) = results
        for number, shard in enumerate(_compared(corpus)):
            shard.verdicts.append(found["files"][f"verdicts-{number:05d}.parquet"])
        file = found["files"]["clusters.parquet"]
        corpus.sections["copies"] = {**found["report"], "file": file, "sketched": _sketched(corpus)}


def _sketched(corpus: Corpus) -> list[list[dict]]:
    """[documents, sketches] of each shard: entries of files."""
    return [[shard.files["sketch"][name] for name in ("documents", "sketches.npz")] for shard in _compared(corpus)]


def _compared(corpus: Corpus) -> list[DocumentShard]:
    """All shards but those that are held out as others have divided them, of which no document may be missing."""
    return [shard for shard in corpus.shards if shard.given_split in ("", "train")]


def earlier_inputs(folders: Sequence[str], sketch: dict) -> dict[str, list]:
    """The input `earlier` of `find_copies` for prepared folders: shards ([documents, sketches] each) and clusters, as
    entries of files with absolute paths. sketch: the options of the new corpus.

    Documents that an earlier corpus dropped for a rule or an evaluation set also count as originals of copies.

    Raises:
      ConfigError: a folder was prepared without a search for copies, or with another sketch, or its work is gone.
    """
    found: dict[str, list] = {"shards": [], "clusters": []}
    for name in folders:
        folder = local_path(name, "duplicates.earlier").absolute()
        if not (folder / MANIFEST).is_file():
            raise ConfigError(f"duplicates.earlier: {name!r} is not a prepared folder")
        manifest = read_manifest(folder)
        copies = manifest.get("copies")
        if not copies:
            raise ConfigError(f"duplicates.earlier: {name} was prepared with duplicates.kind = 'none'")
        if (made := manifest["stages"]["sketch"]["options"]) != sketch:
            different = ", ".join(
                f"{field} {made.get(field)!r}" for field in sketch if made.get(field) != sketch[field]
            )
            raise ConfigError(f"duplicates.earlier: {name} was prepared with {different}, this corpus uses {sketch}")
        for pair in copies["sketched"]:
            found["shards"].append([_absolute(folder / WORK, entry) for entry in pair])
        found["clusters"].append(_absolute(folder / WORK, copies["file"]))
    return found


def _absolute(work: Path, entry: dict) -> dict:
    path = work / entry["name"]
    if not path.is_file() or path.stat().st_size != entry["size"]:
        raise ConfigError(
            f"duplicates.earlier: {path} is missing or has changed: earlier corpora must keep their folder {WORK}/"
        )
    return {**entry, "name": str(path)}
