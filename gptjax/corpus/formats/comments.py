"""The opening comment of a source file: what stands before its first line of code."""

from __future__ import annotations

import re

_LINE_MARKS = ("#", "//", "--", ";", "%", "!", "'", '"', "*", "dnl ", "rem ", "..", "\\")
# What opens a comment of several lines → what closes it.
_BLOCKS = {"/*": "*/", "<!--": "-->", '"""': '"""', "'''": "'''", "(*": "*)", "{-": "-}", "=begin": "=end", "#|": "|#",
           "--[[": "]]", "{/*": "*/", "{#": "#}", "<#": "#>", "=pod": "=cut"}  # fmt: skip
_BEFORE = re.compile(r"<\?(?:php|xml)|<!doctype|package \w|#!|[rub]{1,2}(?=\"\"\"|''')", re.IGNORECASE)


def opening(text: str) -> str:
    """The comments, docstring and blank lines at the beginning of a source file."""
    lines = text.split("\n")
    return "\n".join(lines[: _length(lines)])


def _length(lines: list[str]) -> int:
    """How many lines the opening comment has."""
    closing = ""
    for number, line in enumerate(lines):
        line = line.strip()
        if closing:
            closing = "" if closing in line else closing
            continue
        if prefix := _BEFORE.match(line):
            line = line[prefix.end() :].strip() if not line.startswith(("#!", "package")) else ""
        opened = max((mark for mark in _BLOCKS if line.startswith(mark)), key=len, default="")
        if opened:
            closing = "" if _BLOCKS[opened] in line[len(opened) :] else _BLOCKS[opened]
        elif line and not line.lower().startswith(_LINE_MARKS):
            return number
    return len(lines)
