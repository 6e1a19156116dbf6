"""Plots as SVG that reads on paper and on screens, light or dark: its colours are CSS variables of the page.

The numbers are those of training/records/plots.py: its series, its smoothing, its words for metrics.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence

import numpy as np

from gptjax.display.formatting import count_text
from gptjax.reporting.document import plain

WIDTH, HEIGHT = 680, 250
ENTRY = 16  # height of an entry of the legend
LEFT, RIGHT, TOP, BOTTOM = 58, 22, 12, 38
MOST_POINTS = 600  # of a line; more are invisible at this width and make the page heavy
# Colours for a page without a style sheet, such as the PDF. `page.css` sets the same variables.
COLORS = {
    **{"--ink": "#1d2126", "--muted": "#5f6770", "--grid": "#e4e7eb"},
    **{"--line-1": "#2f64b0", "--line-2": "#c8434f", "--line-3": "#b97b1a", "--line-4": "#3f8a63"},
    **{"--line-5": "#7a55b0", "--line-6": "#5d6b7a", "--line-7": "#1f8a9c", "--line-8": "#a0522d"},
}
LINES = 8


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a plot. x and y have equal lengths, and y may hold NaN, which leaves gaps.

    Attributes:
      faint: draw it pale and thin, without an entry in the legend: values before smoothing.
      marks: draw a dot at each point.
      color: the number of its colour, from 1.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int = 1
    faint: bool = False
    marks: bool = False


def drawn(
    lines: Sequence[Line],
    x_label: str,
    height: int = HEIGHT,
    from_zero: bool = False,
    also: tuple[str, float] | None = None,
) -> str:
    """The plot as SVG; '' if the finite values have fewer than two places on the x axis.

    from_zero: the y axis begins at 0.
    also: a second name of the x axis, and the factor for its numbers.
    """
    lines = [line for line in lines if np.isfinite(line.y).any()]
    places = {x for line in lines for x in line.x[np.isfinite(line.y)].tolist()}
    if len(places) < 2:
        return ""
    bottom = BOTTOM + (15 if also else 0)  # room for the numbers and names of the x axis
    legend = [line for line in lines if line.name and not line.faint]
    legend = legend if len(legend) > 1 or any(line.faint for line in lines) else []
    top = TOP
    low, high = _range(lines, from_zero)
    left, right = min(float(line.x.min()) for line in lines), max(float(line.x.max()) for line in lines)

    def place_x(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - left) / (right - left)

    def place_y(y: float) -> float:
        return top + (height - top - bottom) * (1 - (y - low) / (high - low))

    if any(_is_behind_legend(line, len(legend), place_x, place_y) for line in lines):
        top, height = TOP + ENTRY * len(legend), height + ENTRY * len(legend)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="11.5">'
    ]
    for value in ticks(low, high, 4 if height < HEIGHT else 5):
        y = place_y(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--grid)" stroke-width="1"/>'
            f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end" fill="var(--muted)">'
            f"{_tick(value, high - low)}</text>"
        )
    for value in ticks(left, right, 6):
        x = place_x(value)
        if also:
            parts.append(
                f'<text x="{x:.1f}" y="{height - bottom + 31}" text-anchor="middle" fill="var(--muted)" '
                f'opacity="0.75">{count_text(also[1] * value) if value else "0"}</text>'
            )
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{height - bottom}" y2="{height - bottom + 4}" stroke="var(--muted)"/>'
            f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle" fill="var(--muted)">'
            f"{count_text(value) if value else '0'}</text>"
        )
    parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height - bottom}" y2="{height - bottom}" stroke="var(--muted)"/>'
        f'<text x="{WIDTH - RIGHT}" y="{height - 5}" text-anchor="end" fill="var(--muted)">'
        f"{html.escape(x_label if also is None else f'{x_label}; {also[0]}')}</text>"
    )
    for line in lines:
        parts += _line(line, place_x, place_y, low, high)
    parts.append(_legend(legend))
    return "".join([*parts, "</svg>"])


def with_colors(svg: str) -> str:
    """The plot for a program that knows no CSS variables."""
    for name, color in COLORS.items():
        svg = svg.replace(f"var({name})", color)
    return svg


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers from low to high, about `wanted` of them."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return []
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(lines: Sequence[Line], from_zero: bool) -> tuple[float, float]:
    """The limits of y, which leave out the highest 1 %: a spike or the first steps must not flatten the rest."""
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    low, high = (0.0 if from_zero else float(values.min())), float(np.percentile(values, 99))
    if len(values) < 50 or from_zero:
        high = float(values.max())
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.1
    return (low if from_zero else low - margin), high + margin


def _line(line: Line, place_x, place_y, low: float, high: float) -> list[str]:
    color = f"var(--line-{(line.color - 1) % LINES + 1})"
    keep = np.unique(np.linspace(0, len(line.x) - 1, min(len(line.x), MOST_POINTS)).round().astype(int))
    points: list[list[str]] = [[]]
    dots = []
    for x, y in zip(line.x[keep], line.y[keep]):
        if not math.isfinite(y):
            points.append([])
            continue
        inside = min(max(float(y), low), high)
        points[-1].append(f"{place_x(float(x)):.1f},{place_y(inside):.1f}")
        if line.marks:
            dots.append(f'<circle cx="{place_x(float(x)):.1f}" cy="{place_y(inside):.1f}" r="2.6" fill="{color}"/>')
    style = 'stroke-width="1" opacity="0.35"' if line.faint else 'stroke-width="1.9"'
    drawn_parts = [
        f'<polyline points="{" ".join(part)}" fill="none" stroke="{color}" {style} stroke-linejoin="round" '
        'stroke-linecap="round"/>'
        for part in points
        if len(part) > 1
    ]
    return drawn_parts + dots


def _is_behind_legend(line: Line, entries: int, place_x, place_y) -> bool:
    """Whether a line goes through the top right corner, where the legend is."""
    places = ((place_x(x), place_y(y)) for x, y in zip(line.x.tolist(), line.y.tolist()) if math.isfinite(y))
    return any(x > WIDTH / 2 and y < TOP + ENTRY * entries + 6 for x, y in places) if entries else False


def _legend(lines: Sequence[Line]) -> str:
    """One entry per line in the top right corner, where falling losses leave room; elsewhere the plot begins below."""
    parts = []
    for number, line in enumerate(lines):
        y = TOP + 10 + ENTRY * number
        color = f"var(--line-{(line.color - 1) % LINES + 1})"
        name = plain(line.name)
        name = name if len(name) <= 60 else name[:59] + "…"
        parts.append(
            f'<text x="{WIDTH - RIGHT - 30}" y="{y + 4}" text-anchor="end" fill="var(--ink)">{html.escape(name)}</text>'
            f'<line x1="{WIDTH - RIGHT - 22}" x2="{WIDTH - RIGHT - 2}" y1="{y}" y2="{y}" stroke="{color}" '
            'stroke-width="2.5" stroke-linecap="round"/>'
        )
    return "".join(parts)


def _tick(value: float, span: float) -> str:
    if abs(value) >= 10_000:
        return count_text(value)
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    digits = max(0, 2 - math.floor(math.log10(span))) if span < 100 else 0
    text = f"{value:.{min(digits, 6)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
