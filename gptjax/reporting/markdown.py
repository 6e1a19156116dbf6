"""A document as Markdown, as the Hugging Face hub shows it. Plots are left out: Markdown has no drawings of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gptjax.reporting.document import (
    Block,
    Bullets,
    Code,
    Facts,
    Figure,
    Folded,
    Note,
    Paragraph,
    Sample,
    Section,
    Table,
    Tiles,
    writable,
)


def markdown(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        blocks = [text for block in section.blocks if (text := _block(block))]
        if blocks:
            parts.append("\n\n".join([f"## {section.title}", *blocks]))
    return "\n\n".join(parts)


def blocks_text(blocks: Sequence[Block]) -> str:
    return "\n\n".join(text for block in blocks if (text := _block(block)))


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return inline(text)
        case Note(text):
            return f"> **Note:** {inline(text)}"
        case Bullets(items):
            return "\n".join(f"- {inline(item)}" for item in items)
        case Facts(rows):
            return _table(("", "", ""), rows, frozenset())
        case Tiles(items):
            return _table(("", "", ""), items, frozenset())
        case Table(head, rows, right, caption):
            return (f"**{inline(caption)}**\n\n" if caption else "") + _table(head, rows, right)
        case Code(text):
            return fenced(text)
        case Sample(prompt, text, how):
            return f"{inline(how)}:\n\n{fenced(prompt + text, 'text')}"
        case Folded(title, blocks):
            return f"<details><summary>{_escaped(title)}</summary>\n\n{blocks_text(blocks)}\n\n</details>"
        case Figure():
            return ""
    raise TypeError(f"no Markdown for {type(block).__name__}")


def inline(text: str) -> str:
    """Text for the inside of a line: `code` stays, everything else is escaped."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _escaped(text: str) -> str:
    text = writable(text)
    text = " ".join(text.split()).join((" " * text.startswith(" "), " " * (text.endswith(" ") and bool(text.strip()))))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def fenced(text: str, kind: str = "") -> str:
    """Text as a code block, with a fence that is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{writable(text)}\n{fence}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int]) -> str:
    if not rows:
        return ""
    lines = [_row(head), _row(["--:" if i in right else "---" for i in range(len(head))], escape=False)]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def _row(cells: Sequence[str], escape: bool = True) -> str:
    return f"| {' | '.join(inline(cell) if escape else cell for cell in cells)} |"
