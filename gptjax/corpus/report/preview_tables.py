"""Tables of a preview of cleaning: what each rule would drop, with examples, and what would be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from gptjax.config import get
from gptjax.corpus.preview import Preview
from gptjax.corpus.stages.select import KEPT
from gptjax.display.formatting import size_text
from gptjax.display.terminal import Console, visible

LANGUAGES = 12  # rows shown
PLACE = 30  # last characters shown of a document's origin


def show(console: Console, settings: Any, previews: Sequence[Preview]) -> None:
    """Prints all tables. asked: the section `cleaning` of the config."""
    previews = [each for each in previews if each.cleaned]
    console.print(_sources(previews))
    for each in previews:
        dropped = each.selected["reasons"]
        console.print(_reasons(settings, each) if dropped else Text(f"{each.source.name}: nothing dropped", "italic"))
        _examples(console, each)
    console.print(_languages(previews))
    for name, what in (("repaired", "repaired"), ("masked", "masked")):
        counts: Counter[str] = Counter()
        for each in previews:
            counts.update(each.cleaned[name])
        if counted := ", ".join(f"{count:,} {key}" for key, count in counts.most_common() if count):
            console.print(f"{what}: {counted}")
    console.print("a sample only: nothing was written; change thresholds by --config.cleaning.GROUP.RULE=VALUE")


def _sources(previews: Sequence[Preview]) -> Table:
    table = Table("source", "recipe", "documents", "size", "kept", "copies", "skipped", title="what was read")
    for column in table.columns[2:6]:
        column.justify = "right"
    for each in previews:
        documents = each.cleaned["documents"]
        dropped = sum(first for first, _ in each.selected["reasons"].values())
        table.add_row(
            each.source.name,
            each.source.recipe or "none",
            f"{documents:,}",
            size_text(each.cleaned["bytes"]),
            f"{1 - dropped / documents:.1%}",
            f"{each.copies:,}",
            "\n".join(f"{count:,} {reason}" for reason, count in each.skipped.items()),
        )
    return table


def _reasons(settings: Any, each: Preview) -> Table:
    """What is dropped: `first` by the first rule that objects; `alone` by each rule if it were the only one."""
    table = Table(
        Column("dropped by", overflow="fold"), "threshold", "documents", "share", "on its own", title=each.source.name
    )
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for reason, (first, against) in each.selected["reasons"].items():
        threshold = f"{get(settings, reason):g}" if "." in reason else ""
        table.add_row(reason, threshold, f"{first:,}", f"{first / each.cleaned['documents']:.1%}", f"{against:,}")
    return table


def _examples(console: Console, each: Preview) -> None:
    """One line per document: its beginning and its origin."""
    reasons = [reason for reason in (KEPT, *each.selected["reasons"]) if reason in each.selected["examples"]]
    for reason in reasons:
        console.print(Text(reason, style="bold"))
        for example in each.selected["examples"][reason]:
            place = f"  {_line(example['uri'])[-PLACE:]}: "
            console.print(Text(place, style="dim") + Text(_line(example["text"])), no_wrap=True, overflow="ellipsis")


def _line(text: str) -> str:
    return visible(" ".join(text.split()))


def _languages(previews: Sequence[Preview]) -> Table:
    documents: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for each in previews:
        for language, (count, bytes_) in each.cleaned["languages"].items():
            documents[language or "not known"] += count
            size[language or "not known"] += bytes_
    table = Table("language", "documents", "share", "size")
    for column in table.columns[1:]:
        column.justify = "right"
    for language, count in documents.most_common(LANGUAGES):
        share = f"{count / documents.total():.1%}"
        table.add_row(language, f"{count:,}", share, size_text(size[language]))
    return table
