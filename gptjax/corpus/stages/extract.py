"""Reads the pieces of a source into files of documents, each of about a shard's size."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus.documents import Document, DocumentWriter, rows_of
from gptjax.corpus.engine import Task
from gptjax.corpus.sources import Piece, Skipped, begins, read_piece
from gptjax.corpus.stages.base import CorpusStage
from gptjax.corpus.state import Corpus, DocumentShard
from gptjax.display.formatting import MEGABYTE, counted


def extract(task: Task, folder: Path) -> dict:
    """inputs: source (name, kind, license, language, options), pieces. options: shard_bytes, most_document_bytes.

    A source whose pieces cannot be cut, such as one large compressed file, gives several files of a shard's size, so
    that later stages always have shards.
    """
    source = task.inputs["source"]
    skipped = Skipped(task.journal)
    output = _Files(folder, task.options["shard_bytes"])
    # Pairs and labelled texts are not cut; as records, they are limited by max_line_bytes.
    most_bytes = sys.maxsize if "form" in task.options else task.options["most_document_bytes"]
    for piece in map(lambda piece: Piece(**piece), task.inputs["pieces"]):
        for document in _documents(piece, source, skipped):
            document = dataclasses.replace(
                document,
                license=document.license or source["license"],
                language=document.language or source["language"],
            )
            output.append(rows_of(source["name"], document, most_bytes, skipped))
    task.journal.end()
    set_aside = [{"document": place, "reason": reason} for place, reason in skipped.set_aside]
    return {
        **{"skipped": dict(sorted(skipped.items())), "places": skipped.places, **output.close()},
        **({"set_aside": set_aside} if set_aside else {}),
    }


def _documents(piece: Piece, source: Mapping[str, Any], skipped: Skipped) -> Iterator[Document]:
    """The documents of a piece. A reader knows where it is in a piece (`begins`); what happens between two documents,
    such as the decoding of a file, is at the place 'after document …', and if the process ends there, the rest is lost.
    """
    documents = read_piece(source["kind"], piece, source["options"], skipped)
    for count in itertools.count():
        if not begins(skipped, f"{piece.uri} after document {count}" if count else piece.uri):
            return
        if (document := next(documents, None)) is None:
            return
        yield document


class _Files:
    """Documents in files of about `size` bytes of text each."""

    def __init__(self, folder: Path, size: int):
        self._folder, self._size = folder, size
        self._writer: DocumentWriter | None = None
        self._files: dict[str, dict[str, int]] = {}

    def append(self, rows: Any) -> None:
        if self._writer is None:
            self._name = f"documents-{len(self._files):03d}.parquet"
            self._writer = DocumentWriter(self._folder / self._name)
        self._writer.append(rows)
        if self._writer.bytes >= self._size:
            self._finish()

    def close(self) -> dict:
        """The report: the files, and their total content."""
        if self._writer is not None:
            self._finish()
        totals = {name: sum(file[name] for file in self._files.values()) for name in ("documents", "bytes")}
        return {**totals, "files": self._files}

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None  # the caller has opened one
        writer.close()
        self._files[self._name] = {"documents": writer.documents, "bytes": writer.bytes}


class Extract(CorpusStage):
    """The documents of all sources, in shards."""

    name, version, function = "extract", 5, staticmethod(extract)

    def options(self, corpus: Corpus) -> dict[str, Any]:
        return {
            "shard_bytes": corpus.config.shard_megabytes * MEGABYTE,
            "most_document_bytes": round(corpus.config.max_document_megabytes * MEGABYTE),
            **corpus.form_option(),
        }

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        return corpus.listing.tasks, corpus.listing.sizes

    def run(self, corpus: Corpus) -> None:
        results = corpus.run(self, *self.tasks(corpus), corpus.failures.count)
        corpus.failures.check()
        self.finish(corpus, results)

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        corpus.skipped = {source.name: Skipped() for source in corpus.listing.sources}
        of_all = Skipped()
        for source, result in zip(corpus.listing.sources, results):
            corpus.skipped[source.name].update(result["report"]["skipped"])
            of_all.update(result["report"]["skipped"])
            of_all.add_places(result["report"]["places"])
            for name, held in result["report"]["files"].items():
                entry = result["files"][name]
                corpus.shards.append(DocumentShard(len(corpus.shards), source, entry, held["documents"], held["bytes"]))
        if of_all.places:
            corpus.sections["skipped_at"] = dict(sorted(of_all.places.items()))
        if not corpus.shards:
            places = {reason: f", such as {some[0]}" for reason, some in of_all.places.items()}
            counts = "; ".join(f"{reason}: {count}{places.get(reason, '')}" for reason, count in sorted(of_all.items()))
            raise ConfigError(f"no document in {counted(corpus.listing.pieces.total(), 'file')} ({counts})")
