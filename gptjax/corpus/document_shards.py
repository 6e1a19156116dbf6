"""The parts that a corpus is worked on in: documents of one source in one file, and what the stages say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class DocumentShard:
    """Documents of one source in one file, and what is known of them so far.

    Attributes:
      number: of the part, as the origins of documents tell it.
      source: its config.
      documents: the file's entry, with count documents and size bytes of text.
      verdicts: entries of files (stages/verdicts.py); spans: of passages to leave out, if any are (stages/passages.py).
      cleaned, selected, left, encoded: the reports of these stages; none of the first two where nothing was asked.
    """

    number: int
    source: Any
    documents: dict
    count: int
    size: int
    verdicts: list[dict] = field(default_factory=list)
    spans: dict = field(default_factory=dict)
    cleaned: dict = field(default_factory=dict)
    selected: dict = field(default_factory=dict)
    left: dict = field(default_factory=dict)
    encoded: dict = field(default_factory=dict)

    def inputs(self, **more: Any) -> dict[str, Any]:
        """Of a stage that looks at the documents that are left."""
        spans = {"spans": self.spans} if self.spans else {}
        return {"documents": self.documents, "verdicts": self.verdicts, **spans, **more}


def inputs_of(
    shards: list[DocumentShard], more: Callable[[DocumentShard], dict] = lambda shard: {}
) -> tuple[list[dict], list[int]]:
    """(inputs, bytes) of one task per shard, over the documents that are left."""
    return [shard.inputs(**more(shard)) for shard in shards], [shard.left.get("bytes", shard.size) for shard in shards]
