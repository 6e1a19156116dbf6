"""Times the task that finds copies, as `prepare` runs it: python experiments/duplicates/task.py --work=PLANTED
[--copies=1] [--turns=3]

PLANTED is a corpus of planting.py; --copies takes its shards several times, with other words in every document, for a
larger corpus of as many planted pairs each. One worker runs the task; it prints the seconds, the peak memory of its
process and of the largest process that it started, and a hash of the tables, which must not change.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags

from gptjax.corpus.duplicates.sketch import Sketch, write_sketches
from gptjax.corpus.engine import Stage, run_stage
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.stages.copies import find_copies

WORK = flags.DEFINE_string("work", None, "The folder with the corpus.", required=True)
COPIES = flags.DEFINE_integer("copies", 1, "How many times the corpus is taken.", 1)
TURNS = flags.DEFINE_integer("turns", 3, "Times to run the task.", 1)
OPTIONS = {"threshold": 0.8, "scope": "global", "verify": True, "resembling": "kept", "memory_megabytes": 512}


def sketched(task, folder: Path) -> dict:
    """A shard, as it is or with the words of its number of copy, and its sketches."""
    path = folder / "documents.parquet"
    if copy := task.inputs["copy"]:
        table = pq.read_table(task.inputs["path"])
        texts = [text.replace("e", f"e{copy}") for text in table["text"].to_pylist()]
        ids = pa.array([(id_ + copy * 0x9E3779B97F4A7C15) % 2**64 for id_ in table["id"].to_pylist()], pa.uint64())
        table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts, pa.large_string()))
        table = table.set_column(table.schema.get_field_index("id"), "id", ids)
        pq.write_table(table, path, compression="zstd", row_group_size=1000)
    else:
        shutil.copy(task.inputs["path"], path)
    return write_sketches(path, folder / "sketches.npz", Sketch())


def measured(task, folder: Path) -> dict:
    started = time.perf_counter()
    report = find_copies(task, folder)
    seconds = time.perf_counter() - started
    peaks = [
        resource.getrusage(who).ru_maxrss * 1.024 / 1e3 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    tables = sorted(path for path in folder.glob("*.parquet"))
    content = hashlib.sha256(json.dumps([pq.read_table(path).to_pylist() for path in tables]).encode())
    return {**report, "seconds": seconds, "peaks": peaks, "content": content.hexdigest()[:16]}


def main(_) -> None:
    paths = sorted(Path(WORK.value).glob("*.parquet"))
    inputs = [{"path": str(path.absolute()), "copy": copy} for copy in range(COPIES.value) for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with LocalProcesses(2) as executor:
            results = run_stage(Stage("sketched", sketched), inputs, work, executor)
        shards = [[result["files"][name] for name in ("documents.parquet", "sketches.npz")] for result in results]
        task = {"shards": shards, "earlier": {"shards": [], "clusters": []}}
        for turn in range(TURNS.value):
            with LocalProcesses(1) as executor:
                stage = Stage("copies", measured, turn + 1, {**OPTIONS, "sources": []})
                (result,) = run_stage(stage, [task], work, executor)
            report = result["report"]
            own, largest = report["peaks"]
            print(
                f"{report['documents']} documents, {report['candidate_pairs']} candidate pairs: "
                f"{report['seconds']:.1f} s, {own:.0f} MB, largest other process {largest:.0f} MB, "
                f"tables {report['content']}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
