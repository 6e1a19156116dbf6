"""The domains that documents are from, and how much text each gave, for the public summary of training content."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gptjax.corpus.stages.histogram import Histogram
from gptjax.files import file_entry, write_aside

FILE = "domains.json"  # of a shard: domain → [documents, bytes]
LISTED = "domains.csv"  # of a prepared folder
SHARE = 0.1  # of all domains, the largest: these are listed
SHOWN = 100  # domains in the manifest


def domain_of(uri: str) -> str:
    """The host of a document's address, without a leading 'www.'; '' if it has none. A uri may name its file, too."""
    if not uri.startswith(("http://", "https://")):
        return ""
    try:
        host = urlsplit(uri.partition(" ")[0]).hostname or ""
    except ValueError:  # not a valid address
        return ""
    return host.strip(".").removeprefix("www.")


def write_domains(folder: Path, domains: Histogram) -> None:
    """Writes the domains of a shard, if there are any."""
    if domains.counts:
        (folder / FILE).write_text(json.dumps(domains.counts))


def publish(folder: Path, files: Iterable[Path]) -> dict[str, Any] | None:
    """Writes domains.csv, the largest tenth of all domains by text, from the files of the shards.

    Returns the manifest's section: counts, and the first few; None, and no file, if no document has an address.
    """
    merged = Histogram()
    for path in files:
        merged.merge(json.loads(path.read_text(encoding="utf-8")))
    counts = merged.counts
    if not counts:
        return None
    ranked = sorted(counts.items(), key=lambda item: (-item[1][1], item[0]))
    listed = ranked[: max(round(len(ranked) * SHARE), 1)]
    with write_aside(folder / LISTED) as file:
        file.write(_table(listed).encode())
    return {
        "domains": len(ranked),
        "documents": sum(documents for documents, _ in counts.values()),
        "bytes": sum(size for _, size in counts.values()),
        "listed": len(listed),
        "file": file_entry(folder / LISTED),
        "largest": dict(listed[:SHOWN]),
    }


def _table(rows: Sequence[tuple[str, list[int]]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["domain", "documents", "bytes"])
    writer.writerows([domain, *of] for domain, of in rows)
    return text.getvalue()
