"""Preferences between two answers in a conversation, from the rows of tables or records (rows.py).

prompt     the messages before the answer, or a text, which is the user's message
chosen     the preferred answer: messages, or a text, which is the assistant's message
rejected   the other answer, likewise

`chosen` and `rejected` may begin with the messages of the prompt. Without the column `prompt`, it is what they have in
common at their beginning, as in TRL's preference sets without a prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.conversation.messages import BadConversation, preference_of
from gptjax.corpus import forms
from gptjax.corpus.documents import Document
from gptjax.corpus.sources import Piece, preferences, rows, skip
from gptjax.corpus.sources.conversations import as_text, reason_of
from gptjax.corpus.sources.rows import libraries as libraries
from gptjax.corpus.sources.streams import counted

FORM = forms.CHAT_PREFERENCES
OPTIONS = preferences.OPTIONS
find = preferences.find


def read(piece: Piece, options: Mapping[str, Any], skipped: Counter[str]) -> Iterator[Document]:
    """The preferences of a piece, as far as it can be read: prompt, chosen and rejected answer, joined (forms.py).

    A row that is no preference is counted with its reason and its place.
    """
    names = preferences.columns(options)
    named: set[str] = set()
    with counted(skipped):
        for place, row in rows.read(piece, names, options, skipped):
            try:
                sides = preference_of(*(_cell(row, options[side] or side) for side in preferences.SIDES))
            except BadConversation as error:
                skip(skipped, reason_of(error, named), place)
            else:
                yield Document(forms.joined_preference(sides, skipped), place)


def _cell(row: Mapping[str, Any], field: str) -> Any:
    """What a row has in a column, or the text of several columns; None if a column is missing."""
    if "{" not in field:
        return as_text(row.get(field))
    texts = rows.texts_of("", row, field, Counter())
    return None if texts is None else " ".join(texts)
