"""Measures the search for repeated passages: python experiments/duplicates/passages.py --work=PLANTED [--kind=window]

Runs its three stages on the shards that planting.py wrote, with two processes, and prints their wall times and counts.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path

from absl import app, flags

from gptjax.corpus.engine import Stage, run_stage
from gptjax.corpus.engine.local import LocalProcesses
from gptjax.corpus.stages.passages import hash_passages, join_passages, mark_passages

WORK = flags.DEFINE_string("work", None, "What planting.py wrote.", required=True)
KIND = flags.DEFINE_enum("kind", "window", ["window", "paragraph", "line"], "Of passages.")
WORDS = flags.DEFINE_integer("words", 50, "The fewest words of a passage.")
SHARDS = flags.DEFINE_integer("shards", 16, "How many.")


def main(_) -> None:
    options = {"kind": KIND.value, "words": WORDS.value}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder, LocalProcesses(2) as executor:
        work = Path(folder)
        inputs = []
        for path in sorted(Path(WORK.value).glob("part-*.parquet"))[: SHARDS.value]:
            (work / path.name).symlink_to(path.resolve())
            inputs.append({"documents": {"name": path.name, "size": path.stat().st_size}, "verdicts": []})

        def timed(stage: Stage, inputs: list[dict]) -> list[dict]:
            started = time.perf_counter()
            results = run_stage(stage, inputs, work, executor)
            seconds[stage.name] = round(time.perf_counter() - started, 1)
            return results

        hashed = timed(Stage("passages", hash_passages, options=options), inputs)
        join = Stage("join", join_passages, options={"memory_megabytes": 512})
        (joined,) = timed(join, [{"shards": [result["files"]["hashes.npy"] for result in hashed]}])
        with_later = [{**one, "later": joined["files"][f"later-{n:05d}.npy"]} for n, one in enumerate(inputs)]
        marked = timed(Stage("mark", mark_passages, options=options), with_later)
    size = sum(result["report"]["bytes"] for result in hashed)
    found = {name: sum(one["report"][name] for one in marked) for name in ("documents_with_copies", "characters")}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1.024 / 1e3
    print(json.dumps({**options, "MB": size / 1e6, "seconds": seconds, "peak_MB": peak, **joined["report"], **found}))


if __name__ == "__main__":
    app.run(main)
