"""Lists the pieces of every source, grouped into tasks of about a shard's size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gptjax.config import ConfigError, RunError
from gptjax.corpus.libraries import versions_of
from gptjax.corpus.plain import plain
from gptjax.corpus.sources import UNREADABLE, Piece, kind_named

FEW = 100  # documents; with fewer, a share of failures says little until all are read


@dataclass
class Listing:
    """Tasks of the extract stage, in the order of the sources.

    Attributes:
      tasks: the inputs of each task; sources: the config of each task's source; sizes: bytes that each reads.
      pieces, bytes: the number of pieces and bytes of each source.
    """

    tasks: list[dict] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    pieces: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


def list_sources(sources: Any, shard_bytes: int) -> Listing:
    """Finds every source's pieces.

    Raises:
      ConfigError: a source does not exist or is empty.
    """
    listing = Listing()
    for source in sources:
        kind = kind_named(source.kind)
        options = {**kind.OPTIONS, **plain(source.options)}
        try:
            pieces = kind.find(source.path, options)
        except ConfigError as error:
            raise ConfigError(f"{source.name}.path: {error}") from None
        left_out = Counter(piece.options["left_out"] for piece in pieces if "left_out" in piece.options)
        if left_out.total() == len(pieces):
            reasons = "".join(f"; left out: {count} {reason}" for reason, count in left_out.most_common(3))
            raise ConfigError(
                f"{source.name}.path = {source.path!r}: no file that a {source.kind!r} source reads{reasons}"
            )
        facts = {"name": source.name, "kind": source.kind, "options": options}
        facts |= {"license": source.license, "language": source.language}
        listing.pieces[source.name] = len(pieces)
        listing.bytes[source.name] = sum(piece.size for piece in pieces)
        for group in _groups(pieces, shard_bytes):
            read = [piece for piece in group if "left_out" not in piece.options]
            made_by = versions_of(name for piece in read for name in kind.libraries(piece.uri, options))
            listing.tasks.append(
                {"source": facts, "pieces": [piece.to_json() for piece in group], "libraries": made_by}
            )
            listing.sources.append(source)
            listing.sizes.append(sum(piece.size for piece in group))
    return listing


def _groups(pieces: list[Piece], most: int) -> list[list[Piece]]:
    """Runs of pieces of at most `most` bytes together, or single pieces that are larger."""
    groups: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if groups[-1] and size + piece.size > most:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += piece.size
    return groups


class FailureLimit:
    """Stops a run as soon as it is clear that too much of a source is unreadable."""

    def __init__(self, listing: Listing, most: float, least: int = 1):
        """A source may fail up to its own max_failure_share, or else `most`; less than `least` failures end no run."""
        self._names = [source.name for source in listing.sources]
        self._most = {source.name: source.get("max_failure_share", most) for source in listing.sources}
        self._least = least
        self._documents: Counter[str] = Counter()
        self._failures: dict[str, Counter[str]] = {}

    def count(self, task: int, report: dict) -> None:
        """Counts what one task of extract read."""
        name = self._names[task]
        self._documents[name] += report["documents"]
        failures = {reason: n for reason, n in report["skipped"].items() if reason.startswith(UNREADABLE)}
        self._failures.setdefault(name, Counter()).update(failures)
        self._check(name, FEW)

    def add(self, source: str, reason: str) -> None:
        """Counts a document that was read and then failed in another stage."""
        self._documents[source] -= 1
        self._failures.setdefault(source, Counter())[reason] += 1
        self._check(source, 1)

    def check(self) -> None:
        """The check when everything is read.

        Raises:
          RunError: more than the stated share of a source is unreadable.
        """
        for name in self._failures:
            self._check(name, 1)

    def _check(self, name: str, least: int) -> None:
        failed = self._failures[name].total()
        total = failed + self._documents[name]
        most = self._most[name]
        if total >= least and failed >= max(self._least, 1) and failed > most * total:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in self._failures[name].most_common(3))
            raise RunError(
                f"{name}: {failed} of {total} documents failed, more than max_failure_share = {most:g}: {reasons}"
            )
