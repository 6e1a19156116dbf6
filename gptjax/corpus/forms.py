"""Forms of a corpus: running text, pairs, labelled texts, preferences, conversations, or preferences in conversations.

All sources of a corpus have one form; their kind decides which (gptjax/corpus/sources). A pair goes through the stages
as one document: its sides are joined by U+001F, ASCII's unit separator. So the search for copies and for
evaluation text, and stages of the user, work for pairs too; only code that splits or encodes knows the sides. In a
labelled text, the label is the second side. A preference is a pair of a prompt and two answers: the chosen one, then
the rejected one. The sides of a conversation are role, content, role, content …; those of a preference in a
conversation are its prompt, chosen and rejected answer, in each of which U+001E joins role, content, role …
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from gptjax.config import ConfigError
from gptjax.conversation.messages import ASSISTANT, BadConversation, Message, checked
from gptjax.corpus.sources import KEPT, kind_named

TEXT, PAIRS, LABELLED, CONVERSATIONS = "text", "pairs", "labelled", "conversations"
PREFERENCES, CHAT_PREFERENCES = "preferences", "chat_preferences"
SIDED = (PAIRS, PREFERENCES)  # documents are sources and targets in turn
TEMPLATED = (CONVERSATIONS, CHAT_PREFERENCES)  # a template writes the documents
SEPARATOR = "\x1f"
INNER_SEPARATOR = "\x1e"  # inside a side of a preference in a conversation
MOST_LABELS = 10_000
FEW_LABELS = 50  # more labels than this must be at most half as many as the texts


def form_of(sources: Iterable) -> str:
    """The common form of these sources, each a config.source(…).

    Raises:
      ConfigError: they do not all have the same form.
    """
    forms = {source.name: getattr(kind_named(source.kind), "FORM", TEXT) for source in sources}
    (first, form), *others = forms.items()
    for name, other in others:
        if other != form:
            raise ConfigError(
                f"sources: {first} gives {form} and {name} gives {other}: a corpus has one form; prepare two folders"
            )
    return form


def joined(sides: Sequence[str], skipped: Counter[str]) -> str:
    """One document of these sides. A separator inside a side becomes a space and is counted."""
    if any(SEPARATOR in side for side in sides):
        skipped[f"{KEPT}U+001F became a space"] += 1
        sides = [side.replace(SEPARATOR, " ") for side in sides]
    return SEPARATOR.join(sides)


def joined_preference(sides: Sequence[Sequence[Message]], skipped: Counter[str]) -> str:
    """One document of the messages of a prompt, a chosen and a rejected answer; a separator inside becomes a space."""
    parts = [[part for message in side for part in message] for side in sides]
    if any(INNER_SEPARATOR in part for side in parts for part in side):
        skipped[f"{KEPT}U+001E became a space"] += 1
        parts = [[part.replace(INNER_SEPARATOR, " ") for part in side] for side in parts]
    return joined([INNER_SEPARATOR.join(side) for side in parts], skipped)


def sides_of(text: str) -> list[str]:
    """The source and its targets, or the text and its label.

    Raises:
      ConfigError: a stage of the user has removed the separator or a side.
    """
    sides = text.split(SEPARATOR)
    if len(sides) < 2 or not all(side.strip() for side in sides):
        raise ConfigError(
            f"stages: the text {text[:60]!r} has no two sides any more: a stage of pairs must return the source, "
            "U+001F and the target"
        )
    return sides


def messages_in(text: str) -> list[Message]:
    """The messages of a conversation.

    Raises:
      ConfigError: a stage of the user has made something else of it.
    """
    sides = text.split(SEPARATOR)
    try:
        return checked([Message(*pair) for pair in zip(sides[::2], sides[1::2])])
    except BadConversation as error:
        raise ConfigError(
            f"stages: the text {text[:60]!r} is no conversation any more ({error}): a stage of conversations must "
            "return role, U+001F, content, U+001F, role …"
        ) from None


def preference_in(text: str) -> list[list[Message]]:
    """The messages of the prompt, of the chosen and of the rejected answer.

    Raises:
      ConfigError: a stage of the user has made something else of it.
    """
    split = [side.split(INNER_SEPARATOR) for side in text.split(SEPARATOR)]
    sides = [[Message(*pair) for pair in zip(side[::2], side[1::2])] for side in split]
    try:
        if len(sides) != 3:
            raise BadConversation(f"{len(sides)} parts")
        for answer in sides[1:]:
            checked([*checked(sides[0], answered=False), *answer])
    except BadConversation as error:
        raise ConfigError(
            f"stages: the text {text[:60]!r} is no preference any more ({error}): a stage of preferences in "
            "conversations must return prompt, U+001F, chosen, U+001F, rejected: each role, U+001E, content, U+001E …"
        ) from None
    return sides


def contents_of(text: str, form: str) -> list[str]:
    """The contents of the messages of a document that a template writes."""
    sides = preference_in(text) if form == CHAT_PREFERENCES else [messages_in(text)]
    return [message.content for side in sides for message in side]


def source_keys(texts: Sequence[str], by: str = "source") -> np.ndarray:
    """uint64 [texts]: equal for documents that have the same source, or, by 'prompt', for conversations that are equal
    up to the first answer."""
    end = f"{SEPARATOR}{ASSISTANT}{SEPARATOR}" if by == "prompt" else SEPARATOR
    return np.array([xxhash.xxh3_64_intdigest(text.partition(end)[0].encode()) for text in texts], np.uint64)


def shown(text: str, form: str = PAIRS) -> str:
    """A document for people to read: each side, or each message, on its own line."""
    if form == CONVERSATIONS:
        return "\n".join(f"{role}: {content}" for role, content in messages_in(text))
    if form == CHAT_PREFERENCES:
        sides = ("\n".join(f"{role}: {content}" for role, content in side) for side in preference_in(text))
        return "\n→ ".join(sides)
    return text.replace(SEPARATOR, "\n→ ")
