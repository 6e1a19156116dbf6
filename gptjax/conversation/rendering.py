"""Messages to token ids by a template, and which of these tokens the assistant wrote.

The text of a message is encoded on its own, as text. The tokenizer has no text with the id of a control token, so no
message can end its turn or begin another, whatever it contains. What comes before an answer is encoded apart from the
answer, so that a model reads the same ids in training and when it is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from gptjax.config import ConfigError
from gptjax.conversation.messages import ASSISTANT, SYSTEM, Message
from gptjax.conversation.template import Template
from gptjax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A conversation of n tokens, without the begin token before it.

    Attributes:
      ids: int32 [n].
      supervised: bool [n], True for what the assistant wrote: the content of its messages, and the token that ends
        each.
    """

    ids: np.ndarray
    supervised: np.ndarray


class Renderer:
    """Renders conversations by a template.

    Attributes:
      end_id: the id of the token that ends an answer.

    Raises:
      ConfigError: the tokenizer lacks a control token of the template, or adds a space before every text.
    """

    def __init__(self, template: Template, tokenizer: Tokenizer):
        if missing := [name for name in template.controls if name not in tokenizer.control_ids]:
            raise ConfigError(
                f"template {template.name!r}: the tokenizer has no control token {missing[0]}: prepare the folder with "
                "--conversations, which adds it"
            )
        if tokenizer.first_bytes:
            raise ConfigError(
                f"template {template.name!r}: the tokenizer adds a space before every text, so that the texts of a "
                "conversation would change; use one that does not"
            )
        self.template, self.tokenizer = template, tokenizer
        self.end_id = tokenizer.control_ids[template.end]
        self._before = {role: self._written(before) for role, (before, _) in template.turns.items()}
        self._after = {role: self._written(after) for role, (_, after) in template.turns.items()}
        self._system = self._written(template.system)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """One conversation, whose messages are checked (messages.py)."""
        (rendered,) = self.render_batch([messages])
        return rendered

    def render_batch(self, conversations: Iterable[Sequence[Message]]) -> list[Rendered]:
        """Several conversations, encoded together."""
        conversations = list(conversations)
        contents = iter(self.tokenizer.encode_batch([one.content for each in conversations for one in each]))
        return [self.joined([one.role for one in each], [next(contents) for _ in each]) for each in conversations]

    def joined(self, roles: Sequence[str], contents: Sequence[np.ndarray], given: int = 0) -> Rendered:
        """One conversation from the ids of its messages' contents.

        given: the number of messages at the beginning of which nothing is supervised, as they are only read.
        """
        parts = [(self._before[SYSTEM], self._system, self._after[SYSTEM])] if self._adds_system(roles) else []
        parts += [(self._before[role], ids, self._after[role]) for role, ids in zip(roles, contents)]
        ids = [np.zeros(0, np.int32)]
        supervised = [np.zeros(0, bool)]
        added = len(parts) - len(roles)
        for number, (role, (before, content, after)) in enumerate(zip([*[SYSTEM] * added, *roles], parts)):
            ids += [before, content, after]
            is_answer = role == ASSISTANT and number >= given + added
            # The end token is the first of what follows the content.
            supervised += [
                np.zeros(len(before), bool),
                np.full(len(content), is_answer),
                np.arange(len(after)) < is_answer,
            ]
        return Rendered(np.concatenate(ids).astype(np.int32), np.concatenate(supervised))

    def prompt(self, messages: Sequence[Message]) -> np.ndarray:
        """int32 [n]: the conversation so far and what comes before an answer, which the model continues."""
        return np.concatenate([self.render(messages).ids, self._before[ASSISTANT]])

    def _adds_system(self, roles: Sequence[str]) -> bool:
        return bool(self.template.system) and roles[:1] != [SYSTEM]

    def _written(self, text: str) -> np.ndarray:
        """The ids of text of the template, which may contain control tokens."""
        ids: list[int] = []
        for piece in self.template.pieces(text):
            control = piece in self.template.controls
            ids += [self.tokenizer.control_ids[piece]] if control else self.tokenizer.encode(piece)
        return np.array(ids, np.int32)
