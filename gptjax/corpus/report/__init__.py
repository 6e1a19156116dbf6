"""Reports on a corpus for people.

funnel.py        figures of every source, from what was read to what is left, for the manifest
card.py          the data card (card.md), with its pictures (plots.py) and documents to look at (samples.py)
public_summary.py  a draft of the EU's public summary of training content
terminal.py      what the command prints while it works and at its end; preview_tables.py: the same for a preview
next_steps.py    the commands that fit what was prepared
"""

from __future__ import annotations

from pathlib import Path

from gptjax.corpus.report import public_summary
from gptjax.corpus.report.card import page
from gptjax.corpus.report.plots import draw
from gptjax.corpus.report.samples import Sample, draw_samples
from gptjax.files import write_aside

__all__ = ["CARD", "draw_samples", "write_card"]

CARD, SUMMARY = "card.md", "public_summary.md"


def write_card(folder: Path, manifest: dict, samples: list[Sample]) -> Path:
    """Writes the card of a prepared folder, and the draft of its public summary, from its manifest and some samples.

    Equal inputs give equal bytes.
    """
    pictures = draw(folder, manifest)
    with write_aside(folder / SUMMARY) as file:
        file.write(public_summary.page(manifest).encode())
    with write_aside(folder / CARD) as file:
        file.write(page(manifest, samples, pictures).encode())
    return folder / CARD
