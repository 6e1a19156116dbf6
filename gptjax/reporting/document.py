"""What a report is made of. All texts are plain strings: whoever writes a form of the document escapes them.

A text may hold `code` between backquotes, which a form may set in another face. Backquotes in text that comes from data
are removed by `plain`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Union

from gptjax.display.terminal import visible


@dataclasses.dataclass(frozen=True)
class Paragraph:
    text: str


@dataclasses.dataclass(frozen=True)
class Note:
    """A sentence that should not be overlooked: something is missing, or must not be done."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Name → value, with an optional remark on where the value comes from: (name, value, remark)."""

    rows: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """right: the columns that are aligned to the right, by number. caption: above the table."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing as SVG, made by curves.py, whose colours are CSS variables. alt: what it shows, in words."""

    svg: str
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Code:
    """Commands or a config, to be copied."""

    text: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """A text that the model wrote: what it was given, what it wrote, and how (a line of small type)."""

    prompt: str
    text: str
    how: str


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The figures that a reader looks for first: (name, value, remark)."""

    items: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Folded:
    """Blocks that a screen shows on request, and a print leaves out unless `printed`."""

    title: str
    blocks: tuple[Block, ...]
    printed: bool = False


Block = Union[Paragraph, Note, Bullets, Facts, Table, Figure, Code, Sample, Tiles, "Folded"]


@dataclasses.dataclass(frozen=True)
class Section:
    """A section with a heading; `anchor` is unique in the document and has only letters, digits and hyphens."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Document:
    """A report. kind: what it is called above its title. lead: the summary, before the first section."""

    kind: str
    title: str
    subtitle: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]
    made: str  # by what and when it was written

    @property
    def nonempty(self) -> Sequence[Section]:
        return [section for section in self.sections if section.blocks]


def writable(text: str) -> str:
    """Text that any form can be written with: control characters become visible, half characters of UTF-16 '�'."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", visible(text))


def plain(text: object) -> str:
    """Text from data, for the inside of a line: without control characters, line breaks and backquotes."""
    return writable(" ".join(str(text).split())).replace("`", "'")
