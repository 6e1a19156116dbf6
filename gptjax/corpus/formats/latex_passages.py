"""Passages that LaTeX's text keeps as they are: maths as its source, and code."""

from __future__ import annotations

import re

from gptjax.corpus.formats.latex_places import OPTION

_LABEL = re.compile(r"\\label\s*\{[^{}\n]*\}\s*")


def plain_maths(source: str) -> str:
    """Maths without what only its own document defines."""
    return _LABEL.sub("", source).replace("\\ensuremath", "").replace("\\xspace", "")


def listing(environment: str, content: str) -> str:
    """Code as it is, without the options of its environment."""
    first, newline, rest = content.partition("\n")
    first = OPTION.sub("", first, count=1)
    if environment == "minted":
        first = re.sub(r"^\s*\{[^{}\n]*\}", "", first, count=1)
    code = f"{first}{newline}{rest}" if first.strip() else rest
    return code.rstrip().replace("\t", "    ").strip("\n")
