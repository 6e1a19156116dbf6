"""The numbers that LaTeX's references show: \\label → the number by LaTeX's usual counters."""

from __future__ import annotations

import re

_LEVELS = ("part", "chapter", "section", "subsection", "subsubsection")
_NUMBERED_MATHS = ("equation", "eqnarray", "align", "gather", "multline", "alignat", "flalign", "dmath")
_FLOATS = {
    **dict.fromkeys(("figure", "wrapfigure", "sidewaysfigure"), "figure"),
    **dict.fromkeys(("table", "deluxetable", "longtable"), "table"),
    **dict.fromkeys(("listing", "lstlisting"), "listing"),
    "algorithm": "algorithm",
}
_MARK = re.compile(
    r"\\(part|chapter|section|subsection|subsubsection)(\*?)\s*[\[{]"
    r"|\\begin\s*\{(\w+)(\*?)\}|\\label\s*\{([^{}\n]{1,200})\}|\\(appendix)\b"
)


def numbers(source: str, theorems: dict[str, str]) -> dict[str, str]:
    """label → number, such as "2.1", counted by sections, equations, floats and theorems.

    Args:
      theorems: environments that share one counter, as in most classes.
    """
    counts: dict[str, int] = dict.fromkeys((*_LEVELS, "equation", "theorem", *_FLOATS.values()), 0)
    deepest = "chapter" if re.search(r"\\chapter\s*[\[{]", source) else "section"
    appendix, latest = False, ""
    found_numbers: dict[str, str] = {}
    for found in _MARK.finditer(source):
        heading, star, environment, starred, label, appendix_begins = found.groups()
        if label:
            found_numbers.setdefault(label, latest)
        elif heading and not star:
            counts[heading] += 1
            below = _LEVELS[_LEVELS.index(heading) + 1 :]
            counts.update(dict.fromkeys(below if heading != "part" else (), 0))
            latest = _section_number(counts, deepest, heading, appendix)
        elif environment and not starred:
            row = "equation" if environment in _NUMBERED_MATHS else _FLOATS.get(environment)
            row = row or ("theorem" if environment in theorems else None)
            if row:
                counts[row] += 1
                latest = str(counts[row])
        elif appendix_begins:
            appendix = True
            counts.update(dict.fromkeys(_LEVELS, 0))
    return found_numbers


def _section_number(counts: dict[str, int], deepest: str, heading: str, appendix: bool) -> str:
    if heading == "part":
        return str(counts["part"])
    levels = _LEVELS[_LEVELS.index(deepest) : _LEVELS.index(heading) + 1]
    parts = [str(counts[level]) for level in levels]
    if appendix and parts:
        parts[0] = chr(ord("A") + min(max(int(parts[0]) - 1, 0), 25))
    return ".".join(parts)
