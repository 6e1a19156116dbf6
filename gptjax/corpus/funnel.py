"""What became of every source's documents, from the first look to the last token: figures for the manifest."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from gptjax.corpus.config import plain
from gptjax.corpus.listing import Listing

if TYPE_CHECKING:
    from gptjax.corpus.pipeline import Shard


def skipped(listing: Listing, reports: list[dict]) -> dict[str, dict[str, int]]:
    """Source → reason → how many documents or files a reader counted so."""
    counts: dict[str, Counter[str]] = {source.name: Counter() for source in listing.sources}
    for source, report in zip(listing.sources, reports):
        counts[source.name].update(report["skipped"])
    return {name: dict(sorted(reasons.items())) for name, reasons in counts.items()}


def total(counts: dict[str, dict[str, int]]) -> dict[str, int]:
    """reason → count, over all sources."""
    summed: Counter[str] = Counter()
    for reasons in counts.values():
        summed.update(reasons)
    return dict(sorted(summed.items()))


def told(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in reasons.items())


def by_source(
    config: Any, listing: Listing, shards: list[Shard], skipped: dict[str, dict[str, int]]
) -> list[dict[str, Any]]:
    """One entry a source: what it is, what was found, extracted, dropped (by reason) and left (by split).

    Of each split documents, bytes, tokens, unknown tokens and bytes a token, each document once whatever the weight;
    and the bytes a token of tokenizers to compare with, on the held-out documents.
    """
    return [
        {
            **plain(source),
            "found": {"files": listing.pieces[source.name], "bytes": listing.bytes[source.name]},
            "skipped": skipped[source.name],
            **_counts([shard for shard in shards if shard.source.name == source.name]),
        }
        for source in config.sources
    ]


def _counts(shards: list[Shard]) -> dict[str, Any]:
    dropped: dict[str, Counter[str]] = {}
    splits: dict[str, Counter[str]] = {}
    compared: Counter[str] = Counter()
    for shard in shards:
        for reason, (documents, size) in shard.left["dropped"].items():
            dropped.setdefault(reason, Counter()).update(documents=documents, bytes=size)
        for split, counts in shard.encoded["splits"].items():
            splits.setdefault(split, Counter()).update(counts)
        compared.update(shard.encoded["compared"])
    held_out = splits.get("validation", Counter())["bytes"]
    return {
        "extracted": {"documents": sum(s.count for s in shards), "bytes": sum(s.size for s in shards)},
        "dropped": {reason: dict(counts) for reason, counts in sorted(dropped.items())},
        "splits": {
            split: {**counts, "bytes_per_token": round(counts["bytes"] / counts["tokens"], 4)}
            for split, counts in sorted(splits.items())
        },
        "compared": {name: round(held_out / tokens, 4) for name, tokens in compared.items()},
    }
