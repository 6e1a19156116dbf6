"""Joins lines that were broken at a width, as in plain text and PDF, into one line per paragraph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping


def unwrapped(text: str, hyphenated: bool = False) -> str:
    """Paragraphs as one line each, where lines were broken to a width.

    If the next line's first word would have fitted, a line was broken by hand and stays: verse, headings, lists, and
    the last lines of paragraphs. Indented lines stay, too.

    Args:
      hyphenated: words were broken at the ends of lines, as in print; else a hyphen there is the word's own.
    """
    lines = [line.rstrip() for line in text.split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    if not lengths:
        return text
    words = Counter(re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text.lower()))
    width = lengths[len(lengths) * 9 // 10]  # most lines of a wrapped text are about this long
    joined: list[str] = []
    previous = ""
    for line in lines:
        if previous and line and not line[0].isspace() and len(previous) + 1 + len(line.split(" ", 1)[0]) > width:
            if previous[-1] not in "-\xad":
                joined[-1] += f" {line}"
            else:
                joined[-1] = _joined(joined[-1], line, words) if hyphenated else joined[-1] + line
        else:
            joined.append(line)
        previous = line
    return "\n".join(joined)


def _joined(before: str, after: str, words: Mapping[str, int]) -> str:
    """Two lines, the first of which ends in a hyphen: "repre-\\nsentations", "well-\\nknown", "there--\\nit".

    The hyphen of a broken word goes; that of a compound stays, as does a dash. Which it is, the rest of the text tells
    where it has the word; else it is a broken word if both parts are of small letters and not both words of their own.
    """
    first, second = re.search(r"([^\W\d_]*)[-\xad]$", before), re.match(r"[^\W\d_]*", after)
    left, right = first[1] if first else "", second[0] if second else ""
    if before[-1] == "\xad":
        return before[:-1] + after
    if not left or not right or not right.islower() or before.endswith("--"):
        return before + after
    whole, compound = words[(left + right).lower()], words[f"{left}-{right}".lower()]
    if whole != compound:
        is_broken = whole > compound
    else:
        is_broken = not (words[left.lower()] > 1 and words[right.lower()] > 1)
    return (before[:-1] if is_broken else before) + after
