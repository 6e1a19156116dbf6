"""Where the time of a corpus goes: what `gptjax.prepare` does, with a table of its stages.

python experiments/corpus/stages.py --config=CONFIG --output=NEW_FOLDER [--workers=1]: the flags of gptjax.prepare.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gptjax import cli, prepare
from gptjax.corpus.config import default, validate
from gptjax.corpus.listing import list_sources
from gptjax.corpus.pipeline import MEGABYTE, Pipeline


class Timed:
    """`watch` of a pipeline that prints a row for every stage that has ended."""

    def __init__(self):
        self.seconds = 0.0

    @contextmanager
    def __call__(self, stage: str, sizes: Sequence[int]) -> Iterator[Callable[[int, dict], None]]:
        documents = []
        began = time.perf_counter()
        yield lambda number, result: documents.append(result["report"].get("documents", 0))
        seconds = time.perf_counter() - began
        self.seconds += seconds
        row(stage, len(sizes), sum(documents), sum(sizes), seconds)


def row(stage: str, tasks: int, documents: int, size: int, seconds: float) -> None:
    """Of what is not told of every stage, nothing."""
    megabytes = size / MEGABYTE
    rate = f"{megabytes:.1f} | {seconds:.2f} | {megabytes / seconds:.1f}" if size else f" | {seconds:.2f} | "
    print(f"| {stage} | {tasks} | {documents or ''} | {rate} |", flush=True)


def main(_) -> None:
    began = time.perf_counter()
    config, folder, watch = prepare.CONFIG.value, Path(prepare.OUTPUT.value), Timed()
    validate(config)
    print("| stage | tasks | documents | MB in | seconds | MB/s |\n|---|---:|---:|---:|---:|---:|")
    listing = list_sources(config.sources, config.shard_megabytes * MEGABYTE)
    with prepare.make_executor(folder) as executor:
        Pipeline(config, listing, folder, executor, watch).prepare(prepare.recognised_by(config, listing))
    seconds = time.perf_counter() - began
    row("listing, assembly, card", 1, 0, 0, seconds - watch.seconds)
    row("all", 1, 0, listing.bytes.total(), seconds)


if __name__ == "__main__":
    cli.run(main, fields=default)
