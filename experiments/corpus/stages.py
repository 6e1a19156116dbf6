"""Shows how the time of a corpus is spent: runs `gptjax.prepare` and prints a table of its stages.

python experiments/corpus/stages.py --config=CONFIG --output=NEW_FOLDER [--workers=1]: the flags of gptjax.prepare.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gptjax import prepare
from gptjax.command_line import cli
from gptjax.corpus.config import validate
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources
from gptjax.display.formatting import MEGABYTE


class Timed:
    """A pipeline's `watch` that prints a row per finished stage. spent: the time in stages, like `spent_by_all`."""

    def __init__(self):
        self.spent = (0.0, 0.0)

    @contextmanager
    def __call__(self, stage: str, sizes: Sequence[int]) -> Iterator[Callable[[int, dict], None]]:
        documents = []
        began = spent_by_all()
        yield lambda number, result: documents.append(result["report"].get("documents", 0))
        spent = tuple(now - then for now, then in zip(spent_by_all(), began))
        self.spent = tuple(map(sum, zip(self.spent, spent)))
        row(stage, len(sizes), sum(documents), sum(sizes), *spent)


def spent_by_all() -> tuple[float, float]:
    """Returns the wall-clock seconds, and the processor seconds of this process and its live workers (Linux)."""
    processors = time.process_time()
    for worker in multiprocessing.active_children():
        user, system = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        processors += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), processors


def row(stage: str, tasks: int, documents: int, size: int, seconds: float, processors: float) -> None:
    """Prints a row; cells without a value stay empty."""
    megabytes = size / MEGABYTE
    volume = (f"{megabytes:.1f}", f"{megabytes / processors:.1f}") if size else ("", "")
    print(
        f"| {stage} | {tasks} | {documents or ''} | {volume[0]} | {seconds:.2f} | {processors:.2f} | {volume[1]} |",
        flush=True,
    )


def main(_) -> None:
    began = spent_by_all()
    config, folder, watch = prepare.CONFIG.value, Path(prepare.OUTPUT.value), Timed()
    validate(config)
    print("| stage | tasks | documents | MB in | seconds | processor seconds | MB/s per core |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    listing = list_sources(config.sources, config.shard_megabytes * MEGABYTE)
    with prepare.make_executor(folder) as executor:
        Pipeline(config, listing, folder, executor, watch).prepare(prepare.output_options(config, listing))
        spent = tuple(now - then for now, then in zip(spent_by_all(), began))
    row("listing, assembly, card", 1, 0, 0, *(all - stages for all, stages in zip(spent, watch.spent)))
    row("all", 1, 0, listing.bytes.total(), *spent)


if __name__ == "__main__":
    cli.run(main, prepare.flags)
