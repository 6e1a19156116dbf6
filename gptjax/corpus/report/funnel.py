"""What happened to the documents of every source, from reading to tokens: figures for the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from gptjax.corpus.plain import plain
from gptjax.corpus.sources.listing import Listing
from gptjax.corpus.stages.histogram import Histogram
from gptjax.corpus.stages.select import EXAMPLES
from gptjax.corpus.state import DocumentShard


def total(counts: dict[str, dict[str, int]]) -> dict[str, int]:
    """reason → count, over all sources."""
    summed: Counter[str] = Counter()
    for reasons in counts.values():
        summed.update(reasons)
    return dict(sorted(summed.items()))


def by_source(
    config: Any, listing: Listing, shards: list[DocumentShard], skipped: dict[str, dict[str, int]]
) -> list[dict[str, Any]]:
    """One entry per source: its config, and what was found, extracted, cleaned, dropped (by reason) and left (by
    split).

    cleaned (if the config asks for cleaning): documents and bytes after it, repaired, masked, languages, lengths (as in
    the report of stages/clean.py), reasons and examples (as in that of stages/select.py). languages, licenses, lengths:
    those of the documents left.

    For each split: documents (a document whose tail is held out is in both), bytes, tokens, unknown tokens and bytes
      per
    token, each document once whatever its weight; and on the held-out documents the bytes per token of tokenizers to
    compare with.
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


def left_documents(source: dict[str, Any]) -> int:
    """The number of an entry's documents in the corpus: not the sum of its splits, which share cut documents."""
    return sum(documents for documents, _ in source["lengths"].values())


def _counts(shards: list[DocumentShard]) -> dict[str, Any]:
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
        "cleaned": _cleaned([shard for shard in shards if shard.cleaned]),
        "dropped": {reason: dict(counts) for reason, counts in sorted(dropped.items())},
        "splits": {
            split: {**counts, "bytes_per_token": round(counts["bytes"] / counts["tokens"], 4)}
            for split, counts in sorted(splits.items())
        },
        **{name: _merged(shard.left[name] for shard in shards) for name in ("languages", "licenses", "lengths")},
        "compared": {name: round(held_out / tokens, 4) for name, tokens in compared.items()},
    }


def _cleaned(shards: list[DocumentShard]) -> dict[str, Any] | None:
    if not shards:
        return None
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("repaired", "masked")}
    reasons: dict[str, list[int]] = {}
    examples: dict[str, list[dict]] = {}
    for shard in shards:
        for name, counted in counts.items():
            counted.update(shard.cleaned[name])
        for reason, (first, against) in shard.selected["reasons"].items():
            before = reasons.get(reason, [0, 0])
            reasons[reason] = [before[0] + first, before[1] + against]
        for reason, some in shard.selected["examples"].items():
            examples[reason] = [*examples.get(reason, []), *some][:EXAMPLES]
    return {
        **{name: sum(shard.cleaned[name] for shard in shards) for name in ("documents", "bytes")},
        **{name: dict(sorted(counted.items())) for name, counted in counts.items()},
        **{name: _merged(shard.cleaned[name] for shard in shards) for name in ("languages", "lengths")},
        "reasons": dict(sorted(reasons.items())),
        "examples": dict(sorted(examples.items())),
    }


def _merged(histograms: Iterable[dict[str, list[int]]]) -> dict[str, list[int]]:
    merged = Histogram()
    for counts in histograms:
        merged.merge(counts)
    return merged.counts
