"""Tidies the text that was made of LaTeX: white space, and the brackets and commas around citations that are not shown.

Passages that must stay as they are, such as code and maths, are marks in the text while it is tidied.
"""

from __future__ import annotations

import re

# A citation or a page number that is not shown; a level of indentation; a passage that is kept as it is.
CITED, PAGE, INDENT, _KEPT, _END = "\x01", "\x05", "\x02", "\x03", "\x04"
MARKS = re.compile(f"[{CITED}{PAGE}{INDENT}{_KEPT}{_END}]")
KEPT_PASSAGE = re.compile(f"{_KEPT}(\\d+){_END}")

_LEAD_IN = (
    r"(?:see|see also|e\.g\.|cf\.?|i\.e\.|for example|for instance|for a review,? see|and references therein|also|"
    r"[,;.\s])"
)
_ON_PAGE = rf"\b(?:starting\s)?(?:(?:on|at|see)\s)?(?:[Pp]ages?|[Pp]p?\.)\s?{PAGE}"
_PAGES = (
    (re.compile(rf",\s{_ON_PAGE},"), ""),
    (re.compile(rf"[\s(,]{{1,3}}{_ON_PAGE}\)?"), ""),
    (re.compile(PAGE), CITED),
)
_TIDY = (
    (re.compile(rf" ?[(\[](?:{_LEAD_IN}|{CITED})*{CITED}(?:{_LEAD_IN}|{CITED})*[)\]]", re.IGNORECASE), ""),
    (re.compile(rf"\n(?<!\n\n)(?={CITED})"), ""),
    (re.compile(rf" ?{CITED}(?:\s*[,;]?\s*{CITED})*"), ""),
    (re.compile(r"[ \t\xa0]{2,}|[\t\xa0]"), " "),
    (re.compile(r" ?\n ?"), "\n"),
    (re.compile(r"\n{3,}"), "\n\n"),
    (re.compile(r"\n\n(?=- )"), "\n"),
    (re.compile(r" ([,.;:])(?=\s)"), r"\1"),
    (re.compile(r" {2,}"), " "),
    (re.compile(INDENT), "  "),
    (re.compile(r"(‘[^\s‘'][^‘]{0,300}?)'(?!\w)"), r"\1’"),  # the mark that closes a quotation
)


def kept_mark(number: int) -> str:
    return f"{_KEPT}{number}{_END}"


def tidy(text: str) -> str:
    text = text.replace("~", " ")
    for pattern, replacement in (*(_PAGES if PAGE in text else ()), *_TIDY):
        text = pattern.sub(replacement, text)
    return text.strip("\n ")
