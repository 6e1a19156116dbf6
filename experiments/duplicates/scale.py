"""Times join and components of many documents: python experiments/duplicates/scale.py --work=FOLDER
[--documents=10000000]

It uses sketches with synthetic keys instead of documents: a tenth of them share a key with another one in every band, a
twentieth in one band, and in each band 0.5 % of all share one key (a hot bucket). Runs the search without verification
in a separate process and prints its wall time and peak memory.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from gptjax.corpus.duplicates.find import Search, find_duplicates
from gptjax.corpus.duplicates.nodes import SketchedShard
from gptjax.corpus.duplicates.sketch import Sketch, save_sketches
from gptjax.data.splitmix import mix

WORK = flags.DEFINE_string("work", None, "A folder for the sketches: 190 bytes per document.", required=True)
DOCUMENTS = flags.DEFINE_integer("documents", 10_000_000, "How many.")
MEMORY = flags.DEFINE_list("memory", ["512", "128"], "Megabytes that the join may use; one run each.")
SHARD = 1_000_000
SKETCH = Sketch(bands=18, rows=7)


def make(folder: Path, documents: int) -> list[SketchedShard]:
    rng, shards = np.random.default_rng(0), []
    for first in range(0, documents, SHARD):
        numbers = np.arange(first, min(first + SHARD, documents), dtype=np.uint64)
        like = numbers.copy()  # the document whose keys this one has
        copies = rng.random(len(numbers)) < 0.1
        like[copies] = rng.integers(0, documents, np.count_nonzero(copies))
        columns = {
            "ids": mix(numbers + np.uint64(1)),
            "exact": mix(numbers + np.uint64(1 << 40)),
            "lengths": rng.integers(100, 100_000, len(numbers)),
            "rows": np.arange(len(numbers)),
            "source_codes": np.zeros(len(numbers), np.int32),
            "shingled": np.ones(len(numbers), bool),
        }
        keys = np.empty((len(numbers), SKETCH.bands), np.uint64)
        for band in range(SKETCH.bands):
            keys[:, band] = mix(like + np.uint64((band + 1) << 42))
            keys[rng.random(len(numbers)) < 0.005, band] = band
        once = np.flatnonzero(rng.random(len(numbers)) < 0.05)
        other = rng.integers(0, documents, len(once)).astype(np.uint64)
        keys[once, 0] = mix(other + np.uint64(1 << 42))
        shards.append(SketchedShard(folder / "none", folder / f"{first // SHARD:03d}.npz"))
        save_sketches(shards[-1].sketches, SKETCH, ["made up"], columns, keys)
    return shards


def search(shards: list[SketchedShard], folder: Path, memory: int) -> None:
    started = time.perf_counter()
    report = find_duplicates(shards, folder, Search(verify=False, memory_megabytes=memory))
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"--memory={memory}: {seconds:.1f} s, peak RSS {peak * 1.024 / 1e3:.0f} MB, {json.dumps(report)}", flush=True)


def main(_) -> None:
    folder = Path(WORK.value)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shards = make(folder, DOCUMENTS.value)
    for memory in MEMORY.value:
        process = multiprocessing.get_context("spawn").Process(target=search, args=(shards, folder, int(memory)))
        process.start()
        process.join()
    shutil.rmtree(folder)


if __name__ == "__main__":
    app.run(main)
