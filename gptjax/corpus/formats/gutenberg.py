"""Project Gutenberg's plain text: the book without the header and the licence around it."""

from __future__ import annotations

import re

_HEADER_REACH = 60_000  # characters; the longest small print, or a long list of other books, has fewer
_START = re.compile(
    r"\*\*\* ?START OF (?:THE|THIS) (?:COPYRIGHTED )?PROJECT GUTENBERG.{0,400}?\*\*\*[ \t]*$",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_SMALL_PRINT_END = re.compile(r"^\*{1,3} ?END ?\*? ?(?:OF )?THE SMALL PRINT!.*$", re.MULTILINE)
_END = re.compile(
    r"^[ \t]*\*\*\* ?END OF (?:THE|THIS) (?:COPYRIGHTED )?PROJECT GUTENBERG", re.MULTILINE | re.IGNORECASE
)
_LAST_LINE = re.compile(
    r"^[ \t]*(?:\*{0,3} ?End of (?:the |this )?(?:copyrighted )?Project Gutenberg.{0,3} "
    r"|\*\*\*START\*\*THE SMALL PRINT!)",
    re.MULTILINE | re.IGNORECASE,
)
_LAST_LINE_REACH = 600  # characters before _END
# Paragraphs after the header that describe the file.
_CREDITS = re.compile(
    r"\A\s*(?:Produced by|\[Portions of this|\[?Transcriber.{0,3} notes?|Updated editions will|"
    r"Note: (?:Project Gutenberg (?:also )?has|Images of|The Project Gutenberg|See \d|This)|"
    r"(?:There is|Project Gutenberg|We) .{0,40}(?:illustrated|HTML|another|edition|version)|\[Illustration: cover\]|"
    r".{0,80}also (?:has|available as|exists as) an? .{0,30}(?:HTML|illustrated)|"
    r"\[?This (?:e-?text|e-?book|file) (?:was|is|has)|Release Date:|Character set encoding:)"
    r"|\b(?:e-?text|e-?book|HTML version|scanned|proofed|proofread|transcribed|typed|digitized)[\w\s]{0,40}? by\b",
    re.IGNORECASE,
)
_LONGEST_CREDIT = 800  # characters
_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*")


def without_boilerplate(text: str) -> str:
    """Returns the book between Project Gutenberg's header and footer, of any year; other text is unchanged.

    Headers end with "*** START OF …" (since 2003) or with the small print's last line (before); footers begin with
    "*** END OF …", "End of the Project Gutenberg Etext", or a small print at the end. Credits of the file's makers are
    left out, too.
    """
    starts = [found.end() for mark in (_START, _SMALL_PRINT_END) for found in mark.finditer(text, 0, _HEADER_REACH)]
    start = max(starts, default=0)
    end = _end(text, start)
    if not starts and end == len(text):
        return text
    return _without_notes_at_end(_without_credits(text[start:end].strip())) + "\n"


def _end(text: str, start: int) -> int:
    """Where the footer begins. Old ones are only marked by a last line, which a book may have too, but not so late."""
    if marked := _END.search(text, start):
        end = marked.start()
        last = _LAST_LINE.search(text, max(start, end - _LAST_LINE_REACH), end)
    else:
        end = len(text)
        last = _LAST_LINE.search(text, max(start, end // 2))
    return last.start() if last else end


def _without_credits(text: str) -> str:
    while (end := _PARAGRAPH_END.search(text, 0, _LONGEST_CREDIT)) and _CREDITS.search(text, 0, end.start()):
        text = text[end.end() :]
    return text


# What a transcriber says of the file, after the book: up to its end, or to a long paragraph, which is not the note's.
_NOTES_AT_END = re.compile(
    r"\n[ \t]*(?:\n[ \t]*)+(?:\*[ \t*]+\n\s*)?[ \t\[+|_=*-]*Transcriber.{0,3}s? (?:end)?notes?\b", re.IGNORECASE
)
_NOTES_REACH = 0.9  # share of the book before its notes; a note within the book stays


def _without_notes_at_end(text: str) -> str:
    found = _NOTES_AT_END.search(text, int(len(text) * _NOTES_REACH))
    return text[: found.start()].rstrip() if found else text
