"""Speed, recall and precision of ours and three peers: python experiments/duplicates/measure.py --work=FOLDER
[--side=NAME]

With --side, measures one (`sides.py`) on the shards that planting.py wrote and adds it to FOLDER/results.jsonl. Without
it, judges the pairs that each side found and prints the table. Wall time is from Parquet to pairs, including the start
of the two processes. The files are read once before, so that they are in the page cache.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet
from absl import app, flags
from oracle import similarity
from sides import SIDES

from gptjax.corpus.duplicates.find import components
from gptjax.corpus.duplicates.join import pack

WORK = flags.DEFINE_string("work", None, "What planting.py wrote.", required=True)
SIDE = flags.DEFINE_enum("side", None, list(SIDES), "The side to measure; without it, the table is printed.")
BANDS = flags.DEFINE_integer("bands", 18, "Bands.")
ROWS = flags.DEFINE_integer("rows", 7, "Rows per band.")
REPEATS = flags.DEFINE_integer("repeats", 1, "How often the side runs.")
SHARDS = flags.DEFINE_integer("shards", 16, "How many of the shards: fewer for slow sides.")
JUDGED = 4000  # dropped documents whose similarity to the kept one is computed exactly


def measure() -> None:
    work = Path(WORK.value)
    paths = sorted(work.glob("part-*.parquet"))[: SHARDS.value]
    for path in paths:
        path.read_bytes()
    size = sum(sum(len(text.encode()) for text in read_texts(path)) for path in paths)
    seconds, pairs = [], None
    for _ in range(REPEATS.value):
        scratch = work / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        started = time.perf_counter()
        pairs = SIDES[SIDE.value](paths, scratch, BANDS.value, ROWS.value)
        seconds.append(time.perf_counter() - started)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(one.ru_utime + one.ru_stime for one in usage) / REPEATS.value
    name = f"{SIDE.value}, {BANDS.value} × {ROWS.value}"
    np.save(work / f"{name}.pairs.npy", pairs)
    result = {
        "side": name,
        "seconds": seconds,
        "processor_seconds": processor,
        "megabytes": size / 1e6,
        "parent_rss": usage[0].ru_maxrss * 1.024 / 1e3,
        "worker_rss": usage[1].ru_maxrss * 1.024 / 1e3,
    }
    print(json.dumps(result))
    with open(work / "results.jsonl", "a") as file:
        file.write(json.dumps(result) + "\n")


def read_texts(path: Path) -> list[str]:
    return pyarrow.parquet.read_table(path, columns=["text"])["text"].to_pylist()


def table() -> None:
    work = Path(WORK.value)
    texts = [text for path in sorted(work.glob("part-*.parquet")) for text in read_texts(path)]
    truth = np.load(work / "truth.npz")
    copies = truth["pairs"][truth["jaccard"] >= 0.8]
    results: dict[str, dict] = {}
    for result in map(json.loads, open(work / "results.jsonl")):
        results.setdefault(result["side"], {**result, "seconds": []})["seconds"] += result["seconds"]
    columns = "side|MB|seconds, median|min|max|MB/s|processor seconds|peak MB, parent|a worker"
    columns += "|recall, J ≥ 0.8|dropped|of these J ≥ 0.7 with the one kept"
    print(f"|{columns}|\n|{'---|' * (columns.count('|') + 1)}")
    for name, result in results.items():
        size, seconds = result["megabytes"], result["seconds"]
        middle = statistics.median(seconds)
        cells = [name, f"{size:.0f}", *(f"{one:.1f}" for one in (middle, min(seconds), max(seconds), size / middle))]
        cells += [f"{result[one]:.0f}" for one in ("processor_seconds", "parent_rss", "worker_rss")]
        print(f"| {' | '.join([*cells, *judge(np.load(work / f'{name}.pairs.npy'), texts, copies)])} |")


def judge(pairs: np.ndarray, texts: list[str], copies: np.ndarray) -> list[str]:
    """Returns the recall of planted pairs, the number of dropped documents, and the share similar to the kept one."""
    if not len(pairs):
        return ["", "", ""]
    # Longer texts get smaller numbers, so that every side keeps the longest text of a cluster.
    longest = np.argsort([-len(text) for text in texts], kind="stable")
    node = np.argsort(longest)
    cluster = components(pack(*node[pairs].T), len(texts))
    recall = np.mean(np.equal(*cluster[node[copies]].T))
    dropped = np.flatnonzero(cluster != np.arange(len(texts)))
    some = np.random.default_rng(0).choice(dropped, min(JUDGED, len(dropped)), replace=False)
    both = [(texts[longest[one]], texts[longest[cluster[one]]]) for one in some]
    with ProcessPoolExecutor() as executor:
        similarities = np.array(list(executor.map(similarity, both, chunksize=50)))
    return [f"{recall:.4f}", str(len(dropped)), f"{np.mean(similarities >= 0.7):.3f}"]


def main(_) -> None:
    if SIDE.value:
        measure()
    else:
        table()


if __name__ == "__main__":
    app.run(main)
