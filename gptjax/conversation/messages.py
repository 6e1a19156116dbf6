"""The messages of a row of data: its columns as TRL and Alpaca name them, its roles and their order checked.

messages                     [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
prompt, completion           two texts, or two lists of such messages
instruction, input, output   Alpaca's; `input` may be empty or missing
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

SYSTEM, USER, ASSISTANT, TOOL = ROLES = ("system", "user", "assistant", "tool")
COLUMNS = ("messages", "prompt", "completion", "instruction", "input", "output")
# Role → the roles of which one may speak next; '': nobody has spoken yet.
NEXT = {
    "": (SYSTEM, USER),
    SYSTEM: (USER,),
    USER: (ASSISTANT,),
    ASSISTANT: (USER, TOOL),
    TOOL: (TOOL, ASSISTANT),
}


class Message(NamedTuple):
    role: str  # one of ROLES
    content: str


class BadConversation(ValueError):
    """A row that is no conversation. Its text says why, without the row's own values."""


class UnknownRole(BadConversation):
    """A role that is none of ROLES."""

    def __init__(self, role: str):
        super().__init__(f"a role that is none of {', '.join(ROLES)}")
        self.role = role


def messages_of(row: Mapping[str, Any]) -> list[Message]:
    """The messages of a row, which ends with an answer of the assistant.

    Raises:
      BadConversation: a column is missing; a message is empty or is no text; a role is unknown or out of order; the
        last message is not by the assistant.
    """
    if row.get("messages") is not None:
        return checked(_listed(row["messages"]))
    if row.get("prompt") is not None and row.get("completion") is not None:
        prompt, completion = row["prompt"], row["completion"]
        asked = [Message(USER, _text(prompt))] if isinstance(prompt, str) else _listed(prompt)
        answered = [Message(ASSISTANT, _text(completion))] if isinstance(completion, str) else _listed(completion)
        return checked(asked + answered)
    if row.get("instruction") is not None and row.get("output") is not None:
        parts = [_text(row[name]) for name in ("instruction", "input") if row.get(name) is not None]
        question = "\n\n".join(part.strip() for part in parts if part.strip())
        return checked([Message(USER, question), Message(ASSISTANT, _text(row["output"]))])
    raise BadConversation("none of messages; prompt and completion; instruction and output")


def preference_of(prompt: Any, chosen: Any, rejected: Any) -> tuple[list[Message], list[Message], list[Message]]:
    """The messages of a prompt, of the preferred answer to it, and of the other one; each answer is the assistant's.

    Args:
      prompt: messages or a text; None: what both answers begin with.
      chosen, rejected: messages, which may begin with those of the prompt, or a text.

    Raises:
      BadConversation: as for `messages_of`; or the answers are equal, or do not follow the prompt.
    """
    if chosen is None or rejected is None:
        raise BadConversation(f"no column {'chosen' if chosen is None else 'rejected'}")
    both = [
        [Message(ASSISTANT, _text(each))] if isinstance(each, str) else _listed(each) for each in (chosen, rejected)
    ]
    if prompt is None:
        asked = [one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*both))]
    else:
        asked = [Message(USER, _text(prompt))] if isinstance(prompt, str) else _listed(prompt)
    answers = [each[len(asked) :] if each[: len(asked)] == asked else each for each in both]
    asked = checked(asked, answered=False)
    for answer in answers:
        checked([*asked, *answer])
    if answers[0] == answers[1]:
        raise BadConversation("two equal answers")
    return asked, answers[0], answers[1]


def checked(messages: Sequence[Message], answered: bool = True) -> list[Message]:
    """The same messages. An empty system message is left out, as if there were none.

    Args:
      answered: whether the last message must be the assistant's; False: the assistant's turn must come next.

    Raises:
      BadConversation: as for `messages_of`.
    """
    kept = [one for one in messages if one.role != SYSTEM or one.content.strip()]
    before = ""
    for role, content in kept:
        if role not in ROLES:
            raise UnknownRole(role)
        if role not in NEXT[before]:
            raise BadConversation(f"roles out of order: {role} after {before}" if before else f"{role} speaks first")
        if not content.strip():
            raise BadConversation("an empty completion" if role == ASSISTANT else "an empty message")
        if "\0" in content:
            raise BadConversation("NUL bytes: not a text")
        before = role
    if (before == ASSISTANT) != answered:
        raise BadConversation("no answer of the assistant at the end" if answered else "no question at the end")
    return kept


def _listed(value: Any) -> list[Message]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadConversation("messages that are no list")
    return [_message(one) for one in value]


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str) or value.get("content") is None:
        raise BadConversation("a message without role or content")
    return Message(value["role"], _text(value["content"]))


def _text(value: Any) -> str:
    """A text, or the texts of a list of parts {"type": "text", "text": …}."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return "".join(_part(part) for part in value)
    if not isinstance(value, str):
        raise BadConversation("a content that is no text")
    return value.encode("utf-8", "replace").decode()  # lone surrogates, which JSON may have, become '?'


def _part(part: Any) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise BadConversation("a content that is no text")
    return _text(part["text"])
