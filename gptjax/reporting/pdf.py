"""A document as a PDF, set by Typst (extra `report`), which needs no programs or fonts of the system.

The template (report.typ) gets the document as data: a string is set as text, and none is read as Typst's markup.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError
from gptjax.reporting.curves import with_colors
from gptjax.reporting.document import (
    Block,
    Bullets,
    Code,
    Document,
    Facts,
    Figure,
    Folded,
    Note,
    Paragraph,
    Sample,
    Table,
    Tiles,
    writable,
)

TEMPLATE = Path(__file__).with_name("report.typ")
FONT = "Libertinus Serif"  # comes with Typst
INSTALL = "a PDF needs the extra `report`: pip install 'gptjax[report]'"


def can_write_pdf() -> bool:
    return importlib.util.find_spec("typst") is not None


def pdf(document: Document) -> bytes:
    """The document as the bytes of a PDF. Folded blocks are left out, unless they are to be printed.

    Raises:
      ConfigError: the extra `report` is not installed.
    """
    if not can_write_pdf():
        raise ConfigError(INSTALL)
    import typst  # an extra

    made: Any = typst.compile(TEMPLATE.read_bytes(), sys_inputs={"report": json.dumps(as_data(document))})
    return bytes(made)


def as_data(document: Document) -> dict[str, Any]:
    """The document as JSON values for the template."""
    return {
        "kind": writable(document.kind),
        "title": writable(document.title),
        "subtitle": _runs(document.subtitle),
        "lead": _blocks(document.lead),
        "sections": [{"title": writable(each.title), "blocks": _blocks(each.blocks)} for each in document.nonempty],
        "made": _runs(document.made),
    }


def _blocks(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    found = []
    for block in blocks:
        if isinstance(block, Folded):
            found += _blocks(block.blocks) if block.printed else []
        else:
            found.append(_block(block))
    return found


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Paragraph(text):
            return {"kind": "paragraph", "text": _runs(text)}
        case Note(text):
            return {"kind": "note", "text": _runs(text)}
        case Bullets(items):
            return {"kind": "bullets", "items": [_runs(item) for item in items]}
        case Facts(rows):
            return {"kind": "facts", "rows": [[_runs(cell) for cell in row] for row in rows]}
        case Tiles(items):
            return {"kind": "tiles", "items": [[_runs(cell) for cell in item] for item in items]}
        case Table(head, rows, right, caption):
            cells = [[_runs(cell) for cell in row] for row in rows]
            heads = [_runs(each) for each in head]
            return {"kind": "table", "head": heads, "rows": cells, "right": sorted(right), "caption": _runs(caption)}
        case Figure(svg, alt, caption):
            drawing = re.sub(r'font-family="[^"]*"', f'font-family="{FONT}"', with_colors(svg))
            return {"kind": "figure", "svg": drawing, "alt": writable(alt), "caption": _runs(caption)}
        case Code(text):
            return {"kind": "code", "text": writable(text)}
        case Sample(prompt, text, how):
            return {"kind": "sample", "prompt": writable(prompt), "text": writable(text), "how": _runs(how)}
    raise TypeError(f"no PDF for {type(block).__name__}")


def _runs(text: str) -> list[list[Any]]:
    """Pieces of a text, each with whether it is code."""
    pieces = re.split(r"`([^`]+)`", writable(text))
    return [[piece, bool(number % 2)] for number, piece in enumerate(pieces) if piece]
