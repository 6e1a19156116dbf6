"""Labelled texts for classification, from the rows of tables or records (rows.py)."""

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

FORM = forms.LABELLED
OPTIONS = {
    # The column of the label and of the text, or a template of several. '': label and text of records, and of a table
    # whose first line names them; columns 1 and 2 of other tables.
    "label": "",
    "text": "",
    "labels": "",  # the labels that are kept, separated by commas; texts with another one are skipped. '': all
    **READING,
}
USUAL = ("label", "text")
EMPTY = "an empty text or label"
OTHER_LABEL = "a label that is not one of the given ones"


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """Raises ConfigError: a file is missing or of another kind; the columns are not named in an allowed way."""
    named = [rows.columns_of(side, options[side]) for side in ("label", "text")]
    if any(named) and not all(named):
        raise ConfigError("label and text: name the columns of both, or of none")
    return rows.find(path, options)


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The texts of a piece, as far as it can be read, each joined with its label (forms.py)."""
    fields = options["label"], options["text"]
    kept = {label.strip() for label in options["labels"].split(",")} if options["labels"] else None
    names = [name for side in fields for name in rows.columns_of("", side)]
    with counted(skipped):
        for uri, row in rows.read(piece, names, options, skipped, USUAL):
            usual = ("1", "2") if "1" in row else USUAL
            label, texts = (rows.texts_of(uri, row, field, skipped) for field in (fields if names else usual))
            if label is None or texts is None:
                continue
            text = " ".join(texts)
            if is_blank(text) or len(label) != 1 or is_blank(label[0]):
                skip(skipped, EMPTY, uri)
            elif kept is not None and label[0] not in kept:
                skip(skipped, OTHER_LABEL, uri)
            elif "\0" in text:
                skip(skipped, f"{UNREADABLE}NUL bytes: not a text", uri)
            else:
                yield Document(forms.joined([text, label[0]], skipped), uri)
