"""Forms of a corpus: running text, pairs of a source and its targets, labelled texts, preferences, or conversations.

All sources of a corpus have one form; their kind decides which (gptjax/corpus/sources). A pair goes through the stages
as one document: its sides are joined by U+001F, ASCII's unit separator. So the search for copies and for
evaluation text, and stages of the user, work for pairs too; only code that splits or encodes knows the sides. In a
labelled text, the label is the second side. A preference is a pair of a prompt and two answers: the chosen one, then
the rejected one. The sides of a conversation are role, content, role, content …
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
PREFERENCES = "preferences"
SIDED = (PAIRS, PREFERENCES)  # documents are sources and targets in turn
SEPARATOR = "\x1f"
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


def source_keys(texts: Sequence[str], by: str = "source") -> np.ndarray:
    """uint64 [texts]: equal for documents that have the same source, or, by 'prompt', for conversations that are equal
    up to the first answer."""
    end = f"{SEPARATOR}{ASSISTANT}{SEPARATOR}" if by == "prompt" else SEPARATOR
    return np.array([xxhash.xxh3_64_intdigest(text.partition(end)[0].encode()) for text in texts], np.uint64)


def shown(text: str, form: str = PAIRS) -> str:
    """A document for people to read: each side, or each message, on its own line."""
    if form == CONVERSATIONS:
        return "\n".join(f"{role}: {content}" for role, content in messages_in(text))
    return text.replace(SEPARATOR, "\n→ ")
