"""The data card: what a prepared folder holds and how it came about, for people. card.md and card_*.png beside it."""

from __future__ import annotations

from pathlib import Path

from gptjax.corpus.card.page import page
from gptjax.corpus.card.plots import draw
from gptjax.corpus.card.samples import Sample, draw_samples
from gptjax.files import write_aside

__all__ = ["CARD", "draw_samples", "write_card"]

CARD = "card.md"


def write_card(folder: Path, manifest: dict, samples: list[Sample]) -> Path:
    """Writes the card of a prepared folder, from its manifest and some samples; the same bytes from the same."""
    pictures = draw(folder, manifest)
    with write_aside(folder / CARD) as file:
        file.write(page(manifest, samples, pictures).encode())
    return folder / CARD
