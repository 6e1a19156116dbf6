"""Joins lines that were broken at a width, as in plain text and PDF, into one line per paragraph."""

from __future__ import annotations


def unwrapped(text: str) -> str:
    """Paragraphs as one line each, where lines were broken to a width.

    If the next line's first word would have fitted, a line was broken by hand and stays: verse, headings, lists, and
    the last lines of paragraphs. Indented lines stay, too.
    """
    lines = [line.rstrip() for line in text.split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    if not lengths:
        return text
    width = lengths[len(lengths) * 9 // 10]  # most lines of a wrapped text are about this long
    joined: list[str] = []
    previous = ""
    for line in lines:
        if previous and line and not line[0].isspace() and len(previous) + 1 + len(line.split(" ", 1)[0]) > width:
            # "well-\nknown" and "there--\nit" had no space
            joined[-1] += line if previous[-1] == "-" else f" {line}"
        else:
            joined.append(line)
        previous = line
    return "\n".join(joined)
