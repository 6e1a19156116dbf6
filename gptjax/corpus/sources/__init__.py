"""Where documents come from: one module per kind of source, each with the same three functions.

  find(path, options) -> list[Piece]                       the pieces, in a fixed order; those that are left out
                                                           unread are included, to be counted (read_piece)
  libraries(uri, options) -> tuple[str, ...]               the libraries that decide its documents (corpus/libraries.py)
  read(piece, options, skipped) -> Iterator[Document]      the documents; bad ones are counted and skipped

`read` tells `begins` which document, row or member of an archive it is at, so that one that ends the process is left
out the next time. It counts in `skipped`, by reason; `skip` also keeps the places of the first rows. A reason that
begins with UNREADABLE is a failure; the share of failures in a source is limited. A reason that begins with KEPT counts
documents that were kept nevertheless. For any other reason, documents were left out on purpose.

Kinds of source, with what only they use:

text.py, books.py, code.py      files of text; books; source code
web.py, wikipedia.py            web.py reads archives by warc.py, and takes the text of pages by pages.py
papers.py                       LaTeX, JATS, PDF and others
tables.py                       a document per row; columns.py: rows of Parquet and Arrow files
pairs.py, labelled.py, preferences.py, chat_preferences.py, conversations.py     examples in rows; rows.py reads them

What they share:

listing.py                      the pieces of all sources, grouped into tasks
opening.py                      files, local or remote, as streams.py; archives.py: members of zip archives
decompression.py                decoders that return no more than is wanted; limits.py: memory and time of one file
records.py                      a stream, cut into lines, records or values
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from gptjax.config import ConfigError, suggestion
from gptjax.corpus.documents import Document
from gptjax.corpus.engine.journal import Journal

UNREADABLE = "unreadable: "
KEPT = "kept: "

KINDS = {
    "text": "gptjax.corpus.sources.text",
    "web": "gptjax.corpus.sources.web",
    "code": "gptjax.corpus.sources.code",
    "books": "gptjax.corpus.sources.books",
    "papers": "gptjax.corpus.sources.papers",
    "wikipedia": "gptjax.corpus.sources.wikipedia",
    "tables": "gptjax.corpus.sources.tables",
    "pairs": "gptjax.corpus.sources.pairs",
    "labelled": "gptjax.corpus.sources.labelled",
    "preferences": "gptjax.corpus.sources.preferences",
    "chat_preferences": "gptjax.corpus.sources.chat_preferences",
    "conversations": "gptjax.corpus.sources.conversations",
}


class Skipped(Counter[str]):
    """What reading left out or changed: reason → how often.

    Args:
      journal: that of the task (engine/journal.py).

    Attributes:
      places: reason → the first few rows that it concerns, as 'FILE:number', where `skip` was told them.
      set_aside: (place, reason) of what was left out since the process ended there.
    """

    MOST_PLACES = 3

    def __init__(self, journal: Journal | None = None) -> None:
        super().__init__()
        self.journal = journal or Journal()
        self.places: dict[str, list[str]] = {}
        self.set_aside: list[tuple[str, str]] = []

    def add_places(self, places: Mapping[str, Sequence[str]]) -> None:
        for reason, some in places.items():
            self.places[reason] = [*self.places.get(reason, ()), *some][: self.MOST_PLACES]


def skip(skipped: Counter[str], reason: str, place: str) -> None:
    """Counts a reason that concerns the row at this place; a `Skipped` also keeps the place."""
    skipped[reason] += 1
    if isinstance(skipped, Skipped):
        skipped.add_places({reason: [place]})


def begins(skipped: Counter[str], place: str) -> bool:
    """Notes that reading is at this place of its piece; False if it is left out, since the process ended there."""
    if not isinstance(skipped, Skipped) or skipped.journal.begin(place):
        return True
    reason = f"its process ended: {skipped.journal.set_aside[place]}"
    skip(skipped, UNREADABLE + reason, place)
    skipped.set_aside.append((place, reason))
    return False


@dataclass(frozen=True)
class Piece:
    """A file of a source, or a part of one.

    Attributes:
      uri: its path or address.
      size: bytes to read, by which work is divided.
      version: something that changes with the content: a time of modification, an ETag.
      options: JSON: what `read` needs in addition to the source's options.
    """

    uri: str
    size: int
    version: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class SourceKind(Protocol):
    """The module of a kind of source.

    OPTIONS: the options that `config.source(kind=…, **options)` may give, with their defaults.
    FORM: the form of its documents (gptjax/corpus/forms.py), if they are not running text.
    """

    OPTIONS: dict[str, Any]
    find: Any
    libraries: Any
    read: Any


def read_piece(kind: str, piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The documents of a piece that `find` returned; a piece that is left out is only counted."""
    if reason := piece.options.get("left_out"):
        skipped[reason] += 1
        return
    yield from kind_named(kind).read(piece, options, skipped)


def kind_named(name: str) -> SourceKind:
    """The module of a kind, imported when first needed, since some import much.

    Raises:
      ConfigError: there is no such kind.
    """
    if name not in KINDS:
        raise ConfigError(f"kind = {name!r}: expected one of {', '.join(KINDS)}{suggestion(name, KINDS)}")
    return importlib.import_module(KINDS[name])
