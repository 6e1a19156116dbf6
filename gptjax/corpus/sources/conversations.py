"""Conversations, from the rows of tables or records (rows.py): their columns are read as messages_of describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.conversation.messages import COLUMNS, BadConversation, UnknownRole, messages_of
from gptjax.corpus import forms
from gptjax.corpus.documents import Document
from gptjax.corpus.formats import encoding
from gptjax.corpus.sources import Piece, rows, skip
from gptjax.corpus.sources.limits import READING
from gptjax.corpus.sources.rows import libraries as libraries
from gptjax.corpus.sources.streams import counted

FORM = forms.CONVERSATIONS
OPTIONS = dict(READING)
NAMED_ROLES = 8  # unknown roles that are named in the counts; a damaged file may have a different one in every row
LONGEST_ROLE = 20  # characters


def find(path: str, options: Mapping[str, Any]) -> list[Piece]:
    """Raises ConfigError: a file is missing or of another kind."""
    return rows.find(path, options)


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The conversations of a piece, as far as it can be read; messages joined (forms.py).

    A row that is no conversation is counted with its reason and its place.
    """
    named: set[str] = set()
    with counted(skipped):
        for place, row in rows.read(piece, COLUMNS, options, skipped):
            try:
                messages = messages_of({name: as_text(cell) for name, cell in row.items()})
            except BadConversation as error:
                skip(skipped, reason_of(error, named), place)
            else:
                yield Document(forms.joined([side for message in messages for side in message], skipped), place)


def reason_of(error: BadConversation, named: set[str]) -> str:
    """Why a row is skipped, with its unknown role, which is added to `named`, the roles of the rows before."""
    if isinstance(error, UnknownRole) and len(error.role) <= LONGEST_ROLE and len(named | {error.role}) <= NAMED_ROLES:
        named.add(error.role)
        return f"{error}: {error.role!r}"
    return str(error)


def as_text(cell: Any) -> Any:
    """The cell of a Parquet file's column of strings, which columns.py gives as bytes; others stay."""
    return encoding.decode(cell).text if isinstance(cell, bytes) else cell
