"""Preferences between two answers to a prompt, from the rows of tables or records (rows.py)."""

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

FORM = forms.PREFERENCES
SIDES = ("prompt", "chosen", "rejected")
OPTIONS = {
    # The column of each side, or a template of several: "{instruction}\\n{input}". '': the column of that name.
    **dict.fromkeys(SIDES, ""),
    **READING,
}
EMPTY = "an empty prompt or answer"
EQUAL = "two equal answers"
MESSAGES = "messages, which need a chat template: --template, or a source of the kind chat_preferences"


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """Raises ConfigError: a file is missing or of another kind; the columns are not named in an allowed way."""
    for side in SIDES:
        rows.columns_of(side, options[side])
    return rows.find(path, options)


def columns(options: Mapping[str, Any]) -> list[str]:
    """The columns that the options name.

    Raises:
      ConfigError: some are named and others numbered.
    """
    names = [name for side in SIDES for name in rows.columns_of(side, options[side] or side)]
    if any(name.isdecimal() for name in names) and not all(name.isdecimal() for name in names):
        raise ConfigError(f"{', '.join(SIDES)}: name all columns, or give the numbers of all")
    return names


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The preferences of a piece, as far as it can be read: prompt, chosen and rejected answer, joined (forms.py)."""
    fields, names = [options[side] or side for side in SIDES], columns(options)
    with counted(skipped):
        for uri, row in rows.read(piece, names, options, skipped):
            if any(_is_messages(row.get(field)) for field in fields):
                skip(skipped, MESSAGES, uri)
                continue
            sides = [rows.texts_of(uri, row, field, skipped) for field in fields]
            if any(side is None for side in sides):
                continue
            texts = [" ".join(side or ()) for side in sides]
            if any(map(is_blank, texts)):
                skip(skipped, EMPTY, uri)
            elif texts[1] == texts[2]:
                skip(skipped, EQUAL, uri)
            elif any("\0" in text for text in texts):
                skip(skipped, f"{UNREADABLE}NUL bytes: not a text", uri)
            else:
                yield Document(forms.joined(texts, skipped), uri)


def _is_messages(cell: Any) -> bool:
    return isinstance(cell, list) and any(isinstance(one, Mapping) and "role" in one for one in cell)
