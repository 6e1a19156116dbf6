"""The opening comment of a source file, what stands before its first line of code, and the licence header in it."""

from __future__ import annotations

import re

_LINE_MARKS = ("#", "//", "--", ";", "%", "!", "'", '"', "*", "dnl ", "rem ", "..", "\\")
# What opens a comment of several lines → what closes it.
_BLOCKS = {"/*": "*/", "<!--": "-->", '"""': '"""', "'''": "'''", "(*": "*)", "{-": "-}", "=begin": "=end", "#|": "|#",
           "--[[": "]]", "{/*": "*/", "{#": "#}", "<#": "#>", "=pod": "=cut"}  # fmt: skip
_OPENERS = tuple(_BLOCKS)
_BEFORE = re.compile(r"<\?(?:php|xml)|<!doctype|package \w|#!|[rub]{1,2}(?=\"\"\"|''')", re.IGNORECASE)


def opening(text: str) -> str:
    """The comments, docstring and blank lines at the beginning of a source file."""
    lines = text.split("\n")
    return "\n".join(lines[: _length(lines)])


def blocks(text: str) -> list[str]:
    """The opening comment in parts: each docstring, each block comment, each run of comments of lines."""
    lines = text.split("\n")
    parts: list[list[str]] = []
    place, end, mark_before = 0, _length(lines), ""
    while place < end:
        line = lines[place].strip()
        if not line:
            place += 1
            continue
        after = max(_after_comment(lines, place, end), place + 1)
        mark = line[:1] if not line.startswith(_OPENERS) else ""
        if parts and mark and mark == mark_before:  # empty lines may stand between the paragraphs of a notice
            parts[-1] += ["", *lines[place:after]]
        else:
            parts.append(lines[place:after])
        place, mark_before = after, mark
    return ["\n".join(part) for part in parts]


def _opens(line: str) -> str:
    """The mark by which a comment of several lines opens, or ''."""
    if not line.startswith(_OPENERS):
        return ""
    return max(filter(line.startswith, _OPENERS), key=len)


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
        opened = _opens(line)
        if opened:
            closing = "" if _BLOCKS[opened] in line[len(opened) :] else _BLOCKS[opened]
        elif line and not line.lower().startswith(_LINE_MARKS):
            return number
    return len(lines)


_OF_A_LICENSE = re.compile(
    r"copyright|\(c\) ?\d{4}|©|spdx-|licen[sc]ed? (?:under|to|from)|permission is hereby|redistribution and use|"
    r"all rights reserved|(?:general public|apache|mit|bsd|mozilla public) licen[sc]e|licen[sc]e agreement",
    re.IGNORECASE,
)
_OPENS_A_LICENSE = 400  # characters of a comment in which a licence header shows that it is one
_STAYS = re.compile(
    r"#!|.*coding[:=]|<\?|<!doctype|package \w|\{?/?\*? ?@|//go:|"
    r"# *(?:frozen|type:|pylint|ruff|flake8)",
    re.I,
)


_BEGINS_WITHOUT = re.compile(r"\s*[\"'@]")  # a docstring, or a decorator: no header
_FIRST_LINES = 300  # few headers are longer


def without_license_header(text: str) -> str:
    """A source file without the comments at its beginning that only say who holds the copyright and on which terms.

    A docstring stays, as do the lines that a program reads, such as #! and encodings.
    """
    if _BEGINS_WITHOUT.match(text):
        return text
    lines = text.split("\n", _FIRST_LINES)
    end = _length(lines)
    if end >= _FIRST_LINES:
        lines = text.split("\n")
        end = _length(lines)
    kept: list[str] = []
    place = 0
    while place < end:
        line = lines[place].strip()
        if not line or _STAYS.match(line):
            kept.append(lines[place])
            place += 1
            continue
        after = _after_comment(lines, place, end)
        comment = "\n".join(lines[place:after])
        if line.startswith(('"', "'")) or not _OF_A_LICENSE.search(comment[:_OPENS_A_LICENSE]):
            break
        place = after
    else:
        place = end
    if place == 0 or len(kept) == place:
        return text
    left = [*kept, *lines[place:]]
    first = next((number for number, line in enumerate(left) if line.strip()), 0)
    return "\n".join(left[first:])


def _after_comment(lines: list[str], place: int, end: int) -> int:
    """The line after the comment that begins at a line: a block, or lines with the same kind of mark."""
    line = lines[place].strip()
    opened = _opens(line)
    if opened:
        closing, rest = _BLOCKS[opened], line[len(opened) :]
        while closing not in rest and place + 1 < end:
            place += 1
            rest = lines[place]
        return place + 1
    mark = line[:1]
    while place < end and lines[place].strip()[:1] == mark and not _STAYS.match(lines[place].strip()):
        place += 1
    return place
