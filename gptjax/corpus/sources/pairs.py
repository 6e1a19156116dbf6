"""Pairs of a source and its targets, from the rows of tables, records or two files of lines (rows.py).

A list in the source's column is joined by spaces to one text; a list in the target's column has several references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.config import ConfigError
from gptjax.corpus import forms
from gptjax.corpus.documents import Document, is_blank
from gptjax.corpus.sources import UNREADABLE, Piece, rows, skip
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.rows import libraries as libraries
from gptjax.corpus.sources.streams import counted

FORM = forms.PAIRS
REFERENCES = ("each", "first")
OPTIONS = {
    # The column of the source and of the target, or a template: "{context}\n{question}". '': source and target of
    # records, and of a table whose first line names them; columns 1 and 2 of other tables; context, then question, and
    # the answers, of SQuAD's layout: a source that is too long loses its beginning, and the question must stay.
    "source": "",
    "target": "",
    "swap": False,  # exchange source and target
    "prefix": "",  # text before every source
    "references": "each",  # which of several targets to train on: each | first; all are kept for scoring
    **READING,
}
USUAL = ("source", "target")
EMPTY = "an empty side"


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """Raises ConfigError: a file is missing or of another kind; the columns are not named in an allowed way."""
    if options["references"] not in REFERENCES:
        raise ConfigError(f"references = {options['references']!r}: expected one of {', '.join(REFERENCES)}")
    named = [rows.columns_of(side, options[side]) for side in ("source", "target")]
    if any(named) and not all(named):
        raise ConfigError("source and target: name the columns of both, or of none")
    return rows.find(path, options)


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The pairs of a piece, up to the point where it cannot be read any further; sides joined (forms.py).

    Raises:
      ConfigError: two files have unequal numbers of lines.
    """
    fields = options["source"], options["target"]
    names = [name for side in fields for name in rows.columns_of("", side)]
    with counted(skipped):
        for uri, row in rows.read(piece, names, options, skipped, USUAL):
            sides = [rows.texts_of(uri, row, field, skipped) for field in (fields if names else usual_fields(row))]
            source, targets = reversed(sides) if options["swap"] else sides
            if source is None or targets is None:
                continue
            text = " ".join(source)
            if is_blank(text) or not targets or any(map(is_blank, targets)):
                skip(skipped, EMPTY, uri)
            elif any("\0" in side for side in (text, *targets)):
                skip(skipped, f"{UNREADABLE}NUL bytes: not a text", uri)
            else:
                yield Document(forms.joined([options["prefix"] + text, *dict.fromkeys(targets)], skipped), uri)


def usual_fields(row: rows.Row) -> tuple[str, str]:
    """The columns of source and target if none are named."""
    if "1" in row:
        return "1", "2"
    return ("{context}\n{question}", "answers") if all(name in row for name in rows.SQUAD) else USUAL
