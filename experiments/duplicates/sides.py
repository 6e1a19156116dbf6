"""Ways from Parquet shards to candidate pairs with two processes: ours and three peers', each with its released code.

Every side reads the same shards and makes shingles of five words. A side returns pairs of document numbers (in the
order of the shards); gptjax also writes its tables. The peers' sides follow their manuals.
"""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet

from gptjax.corpus.duplicates.find import Search, find_duplicates
from gptjax.corpus.duplicates.nodes import SketchedShard
from gptjax.corpus.duplicates.sketch import Sketch, write_sketches

PROCESSES = 2
WORD = re.compile(r"\w+")


def gptjax(paths: list[Path], work: Path, bands: int, rows: int, verify: bool = True) -> np.ndarray:
    sketch = Sketch(bands=bands, rows=rows)
    shards = [SketchedShard(path, work / f"{path.stem}.npz") for path in paths]
    with ProcessPoolExecutor(PROCESSES) as executor:
        work_list = [executor.submit(write_sketches, shard.documents, shard.sketches, sketch) for shard in shards]
        for one in work_list:
            one.result()
        find_duplicates(shards, work, Search(verify=verify), parallel=executor.map)
    ids = np.concatenate([pyarrow.parquet.read_table(path, columns=["id"])["id"].to_numpy() for path in paths])
    clusters = pyarrow.parquet.read_table(work / "clusters.parquet", columns=["id", "representative"])
    order = np.argsort(ids)
    pairs = [order[np.searchsorted(ids, clusters[name].to_numpy(), sorter=order)] for name in clusters.column_names]
    pairs = np.stack(pairs, axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def python_shingles(path: Path) -> list[list[str]]:
    texts = pyarrow.parquet.read_table(path, columns=["text"])["text"].to_pylist()
    found = []
    for text in texts:
        words = WORD.findall(text.lower())
        found.append([" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))])
    return found


def datasketch(paths: list[Path], work: Path, bands: int, rows: int) -> np.ndarray:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
    with ProcessPoolExecutor(PROCESSES) as executor:
        values = np.concatenate(list(executor.map(partial(_datasketch_values, permutations=bands * rows), paths)))
    like = MinHash(num_perm=bands * rows, scheme="affine32")
    sketches = [
        MinHash(num_perm=bands * rows, hashvalues=one, permutations=like.permutations, scheme="affine32")
        for one in values
    ]
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    return _pairs([index.query(sketch) for sketch in sketches])


def _datasketch_values(path: Path, permutations: int) -> np.ndarray:
    from datasketch import MinHash

    values = []
    for shingles in python_shingles(path):
        sketch = MinHash(num_perm=permutations, scheme="affine32")
        sketch.update_batch([shingle.encode() for shingle in shingles])
        values.append(sketch.hashvalues)
    return np.array(values)


def rensa(paths: list[Path], work: Path, bands: int, rows: int) -> np.ndarray:
    from rensa import RMinHashLSH

    with ProcessPoolExecutor(PROCESSES) as executor:
        by_shard = list(executor.map(partial(_rensa_sketches, permutations=bands * rows), paths))
    sketches = [sketch for shard in by_shard for sketch in shard]
    index = RMinHashLSH(threshold=0.8, num_perm=bands * rows, num_bands=bands)
    index.insert_many(sketches)
    return _pairs(index.query_all(sketches))


def _rensa_sketches(path: Path, permutations: int) -> list:
    from rensa import RMinHash

    return RMinHash.from_token_sets(python_shingles(path), permutations, 1)


def datatrove(paths: list[Path], work: Path, bands: int, rows: int) -> np.ndarray:
    """Runs datatrove's four steps, with its normalization and words; returns pairs (dropped, kept in its cluster)."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import ParquetReader

    shutil.rmtree(work, ignore_errors=True)
    inputs = work / "input"
    inputs.mkdir(parents=True)
    for path in paths:
        (inputs / path.name).symlink_to(path.resolve())
    config = MinhashConfig(num_buckets=bands, hashes_per_bucket=rows)
    folders = {name: str(work / name) for name in ("signatures", "buckets", "removed", "kept")}
    reader = ParquetReader(str(inputs), glob_pattern="*.parquet")
    steps = (
        ([reader, MinhashDedupSignature(folders["signatures"], config=config)], len(paths)),
        ([MinhashDedupBuckets(folders["signatures"], folders["buckets"], config=config)], bands),
        ([MinhashDedupCluster(folders["buckets"], folders["removed"], config=config)], 1),
        ([reader, MinhashDedupFilter(folders["removed"])], len(paths)),
    )
    for number, (pipeline, tasks) in enumerate(steps):
        LocalPipelineExecutor(pipeline, tasks, PROCESSES, logging_dir=str(work / f"logs-{number}")).run()
    return np.zeros((0, 2), np.int64)


def _pairs(found: list[list[int]]) -> np.ndarray:
    """Returns the unique pairs i < j from the results of each document's query."""
    first = np.repeat(np.arange(len(found)), [len(one) for one in found])
    second = np.array([j for one in found for j in one], np.int64)
    return np.stack([first, second], axis=1)[first < second]


SIDES = {
    "gptjax": gptjax,
    "gptjax, not verified": partial(gptjax, verify=False),
    "datasketch": datasketch,
    "rensa": rensa,
    "datatrove": datatrove,
}
