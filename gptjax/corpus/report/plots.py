"""The card's pictures: PNG by matplotlib, imported when they are drawn; the same bytes from the same numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.corpus.duplicates.sketch import probability
from gptjax.corpus.report.card import merged
from gptjax.display.formatting import size_unit
from gptjax.files import write_aside

BLUE, RED, GREY = "#3b6fb6", "#d1495b", "#8a8f98"
MOST = 12  # bars


def draw(folder: Path, manifest: dict) -> dict[str, str]:
    """Writes card_NAME.png for each picture that has data; returns name → file name."""
    pictures = {"funnel": (_draw_funnel,), "kinds": (_draw_lengths, _draw_shares)}
    if manifest["copies"]:
        is_near = manifest["stages"]["sketch"]["options"]["bands"] > 0
        panels = (
            *([_draw_curve] if is_near else []),
            *([_draw_clusters] if manifest["copies"]["cluster_sizes"] else []),
        )
        if panels:
            pictures["duplicates"] = panels
    return {name: _save(folder / f"card_{name}.png", panels, manifest) for name, panels in pictures.items()}


def _save(path: Path, panels: tuple, manifest: dict) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(9, 3.2), dpi=90, layout="tight")
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0]):
            panel(axes, manifest)
        with write_aside(path) as file:
            # the file only needs a method write
            figure.savefig(file, format="png", metadata={"Software": None})  # type: ignore[arg-type]
    return path.name


def _draw_funnel(axes: Any, manifest: dict) -> None:
    """Text read, dropped by reason (for rules, without their group if that is clear), and left, of all sources."""
    read = sum(one["extracted"]["bytes"] for one in manifest["sources"])
    reasons: dict[str, int] = {}
    for one in manifest["sources"]:
        for reason, counts in one["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + counts["bytes"]
    left = sum(counts["bytes"] for one in manifest["sources"] for counts in one["splits"].values())
    ranked = sorted(reasons, key=lambda reason: (-reasons[reason], reason))
    names = Counter(reason.rpartition(".")[2] for reason in ranked)
    short = {reason: name if names[name := reason.rpartition(".")[2]] == 1 else reason for reason in ranked}
    out = [(short[reason], reasons[reason]) for reason in ranked[:MOST]]
    if rest := ranked[MOST:]:
        out.append((f"{len(rest)} other reasons", sum(reasons[reason] for reason in rest)))
    rows = [("read", read, BLUE), *((f"out: {name}", size, RED) for name, size in out), ("left", left, BLUE)]
    factor, unit = size_unit(read)
    _bars(axes, [(_short(name), size / factor, color) for name, size, color in rows])
    axes.set_xlabel(f"{unit} of text")
    axes.set_title("text read, dropped and left", loc="left")


def _draw_lengths(axes: Any, manifest: dict) -> None:
    lengths = {int(key): counts[0] for key, counts in merged(manifest, "lengths").items()}
    starts = sorted(lengths)
    axes.bar(
        starts, [lengths[one] for one in starts], [max(one, 1) for one in starts], align="edge", color=BLUE, ec="w"
    )
    axes.set_xscale("log", base=2)
    axes.set(xlabel="bytes in a document", ylabel="documents")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title("lengths of documents", loc="left")


def _draw_shares(axes: Any, manifest: dict) -> None:
    """Tokens by source in the training split; for a single source, text by language."""
    tokens = {name: counts["tokens"] / 1e6 for name, counts in manifest["splits"]["train"]["sources"].items()}
    if len(tokens) > 1:
        counted, label, title = tokens, "million tokens in the training split", "tokens by source"
    else:
        sizes = {name or "not known": size for name, (_, size) in merged(manifest, "languages").items()}
        factor, unit = size_unit(max(sizes.values()))
        counted = {name: size / factor for name, size in sizes.items()}
        label, title = f"{unit} of text", "text by language"
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MOST]
    _bars(axes, [(_short(name), size, BLUE) for name, size in ranked])
    axes.set_xlabel(label)
    axes.set_title(title, loc="left")


def _draw_curve(axes: Any, manifest: dict) -> None:
    made = manifest["stages"]["sketch"]["options"]
    draw_s_curve(axes, manifest["stages"]["copies"]["options"]["threshold"], made["bands"], made["rows"])


def draw_s_curve(axes: Any, threshold: float, bands: int, rows: int) -> None:
    """Draws the S-curve, with the threshold and the share of pairs found at the threshold."""
    similarity = np.linspace(0, 1, 501)
    found = float(probability(threshold, bands, rows))
    axes.plot(similarity, probability(similarity, bands, rows), label=f"{bands} bands of {rows} rows")
    axes.axvline(threshold, color="grey", linestyle="--", label=f"threshold {threshold:g}: {found:.1%} found")
    axes.set(xlabel="Jaccard similarity of two documents", ylabel="probability of being compared", xlim=(0, 1))
    axes.set_title("pairs that are compared", loc="left")
    axes.legend(loc="upper left", fontsize="small")


def _draw_clusters(axes: Any, manifest: dict) -> None:
    sizes = manifest["copies"]["cluster_sizes"]
    axes.bar(list(sizes), list(sizes.values()), color=BLUE)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set(xlabel="documents in a cluster of copies", ylabel="clusters")
    axes.set_title("copies of a document", loc="left")


def _bars(axes: Any, rows: list[tuple[str, float, str]]) -> None:
    """Horizontal bars, from top to bottom, each with its value."""
    names, sizes, colors = zip(*rows)
    places = range(len(rows), 0, -1)
    for place, size in zip(places, sizes):
        axes.annotate(f" {size:,.3g}" if size < 100 else f" {size:,.0f}", (size, place), va="center", color=GREY)
    axes.barh(places, sizes, color=colors)
    axes.set_yticks(places, names)
    axes.margins(x=0.15)


def _short(name: str) -> str:
    """Text as a label: without mathematics, and not too long. The middle is left out: names often begin alike."""
    return (name if len(name) < 60 else f"{name[:24]}…{name[-34:]}").replace("$", "\\$")
