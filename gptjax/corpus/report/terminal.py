"""What a terminal shows of a corpus in the making: a line a stage as it goes, tables in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from gptjax.corpus.manifest import told_change
from gptjax.corpus.report import CARD
from gptjax.corpus.sources import KEPT
from gptjax.formatting import counted
from gptjax.terminal import Console

MEGABYTE = 1_000_000


class StageLines:
    """`watch` of a pipeline: documents and megabytes done, both by the second, and the time left, of every stage."""

    def __init__(self, console: Console):
        self._console = console

    @contextmanager
    def __call__(self, stage: str, sizes: Sequence[int]) -> Iterator[Callable[[int, dict], None]]:
        columns = (TextColumn(f"{stage:<11}"), BarColumn(bar_width=10), _Rate(), TimeRemainingColumn(compact=True))
        with Progress(*columns, console=self._console) as progress:
            line = progress.add_task(stage, total=max(sum(sizes), 1), documents=0, megabytes=0.0)

            def advance(number: int, result: dict) -> None:
                fields = progress.tasks[line].fields
                report = result["report"]
                progress.update(
                    line,
                    advance=sizes[number],
                    documents=fields["documents"] + report.get("documents", 0),
                    megabytes=fields["megabytes"] + report.get("bytes", 0) / MEGABYTE,
                )

            yield advance
            progress.update(line, completed=progress.tasks[line].total)


class _Rate(ProgressColumn):
    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> str:
        documents, megabytes = task.fields["documents"], task.fields["megabytes"]
        seconds = max(task.elapsed or 0, 1e-3)
        text = f"{counted(documents, 'document')} {documents / seconds:,.0f}/s" if documents else ""
        return f"{text}, {megabytes:,.1f} MB {megabytes / seconds:,.1f} MB/s" if megabytes else text


def summary(console: Console, folder: Path, manifest: dict) -> None:
    """What came out of it."""
    if len(manifest["sources"]) > 1 or any(source["dropped"] for source in manifest["sources"]):
        console.print(_funnel(manifest))
    console.print(_splits(manifest))
    if held_out := _held_out(manifest):
        console.print(held_out, soft_wrap=True)
    made = manifest["tokenizer"]
    console.print(f"tokenizer {made['kind']}, {made['vocab_size']:,} tokens; {manifest['dtype']} shards in {folder}")
    if change := told_change(manifest):
        console.print(change, markup=False)
    for reason, count in manifest["skipped"].items():
        if reason.startswith(KEPT):
            console.print(f"kept {count:,}: {reason.removeprefix(KEPT)}")
        else:
            console.print(f"skipped {count:,}: {reason}")
    console.print(f"data card: {folder / CARD}", soft_wrap=True)


def _held_out(manifest: dict) -> str:
    """How the validation split was chosen, where that was left to us and is not the usual way."""
    done = manifest["stages"]["survey"]["options"]["split"]["by"]
    if manifest["options"].get("split.by") != "auto" or done == "document":
        return ""
    sizes = {split: section["bytes"] for split, section in manifest["splits"].items()}
    share = sizes["validation"] / sum(sizes.values())
    count = manifest["splits"]["train"]["documents"]
    which = "the document" if count == 1 else f"each of the {count} documents (too few to hold out some of them)"
    return f"held out for validation: the last {100 * share:.2g}% of {which}"


def _funnel(manifest: dict) -> Table:
    table = Table("source", "read", "MB", "dropped", "left", "MB", "bytes/token")
    for column in table.columns[1:]:
        column.justify = "right"
    for source in manifest["sources"]:
        splits = source["splits"].values()
        size = sum(split["bytes"] for split in splits)
        table.add_row(
            source["name"],
            f"{source['extracted']['documents']:,}",
            _megabytes(source["extracted"]["bytes"]),
            "\n".join(f"{dropped['documents']:,} {reason}" for reason, dropped in source["dropped"].items()) or "0",
            f"{sum(split['documents'] for split in splits):,}",
            _megabytes(size),
            f"{size / max(sum(split['tokens'] for split in splits), 1):.2f}",
        )
    return table


def _splits(manifest: dict) -> Table:
    table = Table("split", "documents", "MB", "tokens", "bytes/token", "unknown")
    for column in table.columns[1:]:
        column.justify = "right"
    for split, section in manifest["splits"].items():
        table.add_row(
            split,
            f"{section['documents']:,}",
            _megabytes(section["bytes"]),
            f"{section['tokens']:,}",
            f"{section['bytes'] / section['tokens']:.2f}",
            f"{section['unknown_tokens']:,}",
        )
    return table


def _megabytes(size: int) -> str:
    """Two decimals, or of less than a megabyte two digits, so that 20 kB are not 0.0 MB."""
    return f"{size / MEGABYTE:,.2f}" if size >= MEGABYTE else f"{size / MEGABYTE:.2g}"
