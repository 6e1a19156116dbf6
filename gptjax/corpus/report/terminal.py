"""What a terminal shows while a corpus is prepared: one line per stage, and tables at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from gptjax.corpus.forms import PAIRS
from gptjax.corpus.manifest import change_text, places_text, shared_texts, supervised_text
from gptjax.corpus.report import CARD
from gptjax.corpus.report.funnel import left_documents
from gptjax.corpus.sources import KEPT
from gptjax.display.formatting import counted, size_text
from gptjax.display.terminal import Console

SHOWN_LABELS = 20
SHOWN_SET_ASIDE = 10


class StageLines:
    """`watch` of a pipeline: documents (or chunks) and bytes done, both per second, and the time left, by stage."""

    def __init__(self, console: Console):
        self._console = console

    @contextmanager
    def __call__(self, stage: str, sizes: Sequence[int]) -> Iterator[Callable[[int, dict], None]]:
        columns = (TextColumn(f"{stage:<11}"), BarColumn(bar_width=10), _Rate(), TimeRemainingColumn(compact=True))
        with Progress(*columns, console=self._console) as progress:
            line = progress.add_task(stage, total=max(sum(sizes), 1), what="documents", count=0, bytes=0)

            def advance(number: int, result: dict) -> None:
                fields = progress.tasks[line].fields
                report = result["report"]
                what = "chunks" if "chunks" in report else "documents"
                progress.update(
                    line,
                    advance=sizes[number],
                    what=what,
                    count=fields["count"] + report.get(what, 0),
                    bytes=fields["bytes"] + report.get("bytes", 0),
                )

            yield advance
            progress.update(line, completed=progress.tasks[line].total)


class _Rate(ProgressColumn):
    def get_table_column(self) -> Column:
        return Column(no_wrap=True)

    def render(self, task: Task) -> str:
        what, count, size = (task.fields[name] for name in ("what", "count", "bytes"))
        seconds = max(task.elapsed or 0, 1e-3)
        text = f"{counted(count, what.removesuffix('s'))} {count / seconds:,.0f}/s" if count else ""
        return f"{text}, {size_text(size)} {size_text(size / seconds)}/s" if size else text


def summary(console: Console, folder: Path, manifest: dict) -> None:
    """Prints the result."""
    if len(manifest["sources"]) > 1 or any(source["dropped"] for source in manifest["sources"]):
        console.print(_funnel(manifest))
    if any(source["dropped"] for source in manifest["sources"]):
        console.print(_dropped(manifest))
    console.print(_splits(manifest))
    if any(source["weight"] != 1 for source in manifest["sources"]):
        console.print("each split counts a document as often as the weight of its source repeats it", soft_wrap=True)
    if held_out := _held_out(manifest):
        console.print(held_out, soft_wrap=True)
    for note in shared_texts(manifest):
        console.print(note, style="yellow", soft_wrap=True)
    made = manifest["tokenizer"]
    console.print(f"tokenizer {made['kind']}, {made['vocab_size']:,} tokens; {manifest['dtype']} shards in {folder}")
    if own := manifest.get("source_tokenizer"):
        console.print(f"tokenizer of the sources: {own['kind']}, {own['vocab_size']:,} tokens")
    if labels := manifest.get("labels"):
        names = ", ".join(labels[:SHOWN_LABELS]) + ", …" * (len(labels) > SHOWN_LABELS)
        console.print(f"{counted(len(labels), 'label')}: {names}", markup=False, soft_wrap=True)
    if "texts_of_labels" in manifest:  # folders of earlier versions have no counts
        console.print(_labels(manifest))
        for note in _notes_on_labels(manifest):
            console.print(note, style="yellow", soft_wrap=True, markup=False)
    if note := supervised_text(manifest):
        console.print(note, soft_wrap=True)
    if change := change_text(manifest):
        console.print(change, markup=False)
    for reason, count in manifest["skipped"].items():
        what, reason_text = ("kept", reason.removeprefix(KEPT)) if reason.startswith(KEPT) else ("skipped", reason)
        places = f" ({places})" if (places := places_text(manifest, reason)) else ""
        console.print(f"{what} {count:,}: {reason_text}{places}", soft_wrap=True, markup=False)
    for line in _set_aside(manifest):
        console.print(line, style="yellow", soft_wrap=True, markup=False)
    for line in changed(manifest):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"data card: {folder / CARD}", soft_wrap=True)


def changed(manifest: dict) -> list[str]:
    """How many documents cleaning repaired, and how many places it masked, by kind."""
    lines = []
    for field, what in (("repaired", "documents repaired"), ("masked", "places masked")):
        counts: Counter[str] = Counter()
        for one in manifest["sources"]:
            counts.update((one["cleaned"] or {}).get(field) or {})
        if found := ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common() if count):
            lines.append(f"{what}: {found}")
    return lines


def _set_aside(manifest: dict) -> list[str]:
    """The first documents at which a process ended."""
    found = manifest.get("set_aside", [])
    lines = [
        f"left out: {one['source']}: {one['document']}: {one['reason'].removeprefix('its ')} (stage {one['stage']})"
        for one in found[:SHOWN_SET_ASIDE]
    ]
    rest = len(found) - SHOWN_SET_ASIDE
    return [*lines, *([f"… and {counted(rest, 'other document')}, which the data card names"] if rest > 0 else [])]


def _held_out(manifest: dict) -> str:
    """How the validation split was chosen, if it is not of whole documents: the splits then share some."""
    if "validation" not in manifest["splits"] or manifest["stages"]["survey"]["options"]["split"]["by"] != "tail":
        return ""
    sizes = {split: section["bytes"] for split, section in manifest["splits"].items()}
    share = sizes["validation"] / sum(sizes.values())
    count = sum(map(left_documents, manifest["sources"]))
    few = " (too few to hold out some of them)" if manifest["options"].get("split.by") == "auto" else ""
    which = "the document" if count == 1 else f"each of the {count:,} documents{few}"
    return f"held out for validation: the last {100 * share:.2g}% of {which}; both splits count a document that is cut"


def _funnel(manifest: dict) -> Table:
    table = Table("source", "read", "size", "dropped", "left", "size", "bytes/token")
    for column in table.columns[1:]:
        column.justify = "right"
    for source in manifest["sources"]:
        splits = source["splits"].values()
        size = sum(split["bytes"] for split in splits)
        table.add_row(
            source["name"],
            f"{source['extracted']['documents']:,}",
            size_text(source["extracted"]["bytes"]),
            f"{sum(dropped['documents'] for dropped in source['dropped'].values()):,}",
            f"{left_documents(source):,}",
            size_text(size),
            f"{size / max(sum(split['tokens'] for split in splits), 1):.2f}",
        )
    return table


def _dropped(manifest: dict) -> Table:
    """What was dropped, by reason: a row each, since the names of rules are long and many begin alike."""
    table = Table("source", Column("dropped", justify="right", no_wrap=True), Column("reason", overflow="fold"))
    for source in manifest["sources"]:
        name = source["name"]
        for reason, dropped in source["dropped"].items():
            table.add_row(name, f"{dropped['documents']:,}", Text(reason))
            name = ""
    return table


def _labels(manifest: dict) -> Table:
    """How many texts of each split have each label, for the most frequent labels."""
    counts = manifest["texts_of_labels"]
    table = Table("label", *counts)
    for column in table.columns[1:]:
        column.justify = "right"
    for label in sorted(manifest["labels"], key=lambda label: -counts["train"].get(label, 0))[:SHOWN_LABELS]:
        table.add_row(Text(label), *(f"{of.get(label, 0):,}" for of in counts.values()))
    return table


def _notes_on_labels(manifest: dict) -> list[str]:
    """What is suspicious about the labels."""
    counts, notes = manifest["texts_of_labels"], []
    if unseen := [label for label in manifest["labels"] if label not in counts["train"]]:
        notes.append(f"no text of the training split has the label {', '.join(unseen[:SHOWN_LABELS])}")
    if alone := [label for label in manifest["labels"] if sum(of.get(label, 0) for of in counts.values()) == 1]:
        notes.append(
            f"one text only has the label {', '.join(alone[:SHOWN_LABELS])}; if that is the name of a column, give "
            "--label_field and --text_field"
        )
    return notes


def _splits(manifest: dict) -> Table:
    is_pairs = manifest.get("form") == PAIRS
    table = Table("split", "pairs" if is_pairs else "documents", "size", "tokens", "bytes/token", "unknown")
    for column in table.columns[1:]:
        column.justify = "right"
    for split, section in manifest["splits"].items():
        table.add_row(
            split,
            f"{section['documents'] // (1 + is_pairs):,}",
            size_text(section["bytes"]),
            f"{section['tokens']:,}",
            f"{section['bytes'] / section['tokens']:.2f}",
            f"{section['unknown_tokens']:,}",
        )
    return table
