"""Formats counts, shares, bytes and durations in a few characters."""

from __future__ import annotations

import math

MEGABYTE = 1_000_000  # bytes


def count_text(number: float | None) -> str:
    """1234567 → '1.23M'; 'n/a' for an unknown number."""
    if number is None or not math.isfinite(number):
        return "n/a"
    for factor, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * factor:
            return f"{number / factor:.3g}{suffix}" if number < 999.5 * factor else f"{number / factor:.0f}{suffix}"
    return f"{number:.3g}"


def number_text(value: float | None, form: str) -> str:
    """Formats a number, as the form '.4f' says: '–' for None; 'nan' and 'inf' are kept."""
    return "–" if value is None else format(float(value), form)


def percent_text(value: float | None) -> str:
    """0.1234 → '12.3%'; 'n/a' for a share that is unknown or not finite."""
    return "n/a" if value is None or not math.isfinite(value) else f"{100 * value:.1f}%"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """'1 document', '2 documents', '1,234 documents'. nouns: the plural, if it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def bytes_text(number: float | None) -> str:
    """Formats bytes in GiB, or in MiB if less than one GiB."""
    if number is None:
        return "n/a"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def size_text(size: float) -> str:
    """Formats bytes of text and files in a suitable unit: '0 B', '20.5 KB', '1.12 MB'. 1 KB is 1,000 bytes."""
    factor, unit = size_unit(size)
    if factor == 1:
        return f"{size:.0f} B"
    number = size / factor
    return f"{f'{number:#.3g}'.removesuffix('.') if number < 999.5 else f'{number:,.0f}'} {unit}"


def size_unit(size: float) -> tuple[int, str]:
    """Returns (bytes of the unit, its name) for the largest unit that `size` reaches."""
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= 0.9995 * factor:  # rounded to three digits it is one unit
            return factor, unit
    return 1, "B"


def span_text(seconds: float | None) -> str:
    """Formats a duration with its units, for sentences: '0.4 s', '56 min', '4 h 15 min', '20 d 9 h'."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    if round(seconds) < 10:
        return f"{seconds:.1g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours = round(seconds / 3600)
    if minutes < 60:
        return f"{minutes} min"
    if hours >= 48:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{minutes // 60} h {minutes % 60} min"


def duration_text(seconds: float | None) -> str:
    """75 → '1:15', 3675 → '1:01:15'; from two days on '2d 03h'."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24:02d}h"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
