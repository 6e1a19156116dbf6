"""A conversation with a model: what was said, what fits into the model's context, and the answers."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence
from typing import Any

from gptjax.config import ConfigError
from gptjax.conversation import Message, Renderer
from gptjax.conversation.messages import ASSISTANT, SYSTEM, USER
from gptjax.display.formatting import counted
from gptjax.inference.completion import Completion
from gptjax.inference.generate import Generator

LEAST_ROOM = 4  # an answer has room for at least this part of the context: one fourth


class Chat:
    """A conversation.

    Attributes:
      generator: answers; another one may take over between two answers.
      messages: what was said so far, without the system message; it ends with an answer.
      system: the system message; '': none but the template's own.
      forgotten: how many of the oldest messages the model did not read for its last answer, as they did not fit.
    """

    def __init__(self, generator: Generator, renderer: Renderer, system: str = ""):
        self.generator, self._renderer = generator, renderer
        self.begin(system)

    def begin(self, system: str) -> None:
        """Begins a new conversation under a system message.

        Raises:
          ConfigError: it leaves no room in the context for a question and an answer. Nothing changes.
        """
        system_message = [Message(SYSTEM, system)] if system else []
        used, room = 1 + len(self._renderer.prompt([*system_message, Message(USER, "?")])), self._least_room()
        if system and used + room > self.context:
            raise ConfigError(
                f"system = {counted(used, 'token')} with what is written around it: must be at most "
                f"{self.context - room}, so that the context of {self.context} tokens has room for an answer"
            )
        self.messages: list[Message] = []
        self.system, self.forgotten = system, 0

    @property
    def context(self) -> int:
        """The number of tokens that the model can read."""
        return self.generator.config.max_positions

    def whole(self) -> list[Message]:
        """The conversation with its system message."""
        return [*self._system(), *self.messages]

    def answer(self, question: str, **options: Any) -> abc.Generator[str, None, Completion]:
        """Yields the answer in pieces, and adds question and answer to the conversation when it is over.

        If it is closed early, what has been yielded is the answer; if that is nothing, nothing is added. options: as
        `Generator.stream` takes them.

        Raises:
          ConfigError: the question alone does not fit into the context. Nothing is added.
        """
        asked = [*self.messages, Message(USER, question)]
        prompt, self.forgotten = self._fitted(asked, options["max_new_tokens"])
        said = ""
        stream = self.generator.stream(prompt, **options)
        completion = None
        try:
            while completion is None:
                try:
                    piece = next(stream)
                except StopIteration as end:
                    completion = end.value
                else:
                    said += piece
                    yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if said:
                self.messages = [*asked, Message(ASSISTANT, said)]
            raise
        self.messages = [*asked, Message(ASSISTANT, said)]
        return completion

    def undo(self) -> str | None:
        """Takes back the last question and its answer, and returns the question; None if there is none."""
        starts = _questions(self.messages)
        if not starts:
            return None
        question = self.messages[starts[-1]].content
        self.messages = self.messages[: starts[-1]]
        return question

    def tokens(self) -> int:
        """The number of tokens of the conversation so far, with its begin token."""
        return 1 + len(self._renderer.render(self.whole()).ids)

    def _fitted(self, messages: Sequence[Message], new_tokens: int) -> tuple[list[int], int]:
        """The ids to continue, with as many of the latest turns as fit, and the number of messages left out."""
        room = min(new_tokens, self._least_room())
        for start in _questions(messages):
            ids = self._renderer.prompt([*self._system(), *messages[start:]])
            if 1 + len(ids) + room <= self.context:
                return [self.generator.begin_id, *ids.tolist()], start
        raise ConfigError(
            f"message = {counted(1 + len(ids), 'token')} with what is written around it: must be at most "
            f"{self.context - room}, so that the context of {self.context} tokens has room for an answer"
        )

    def _least_room(self) -> int:
        return max(1, self.context // LEAST_ROOM)

    def _system(self) -> list[Message]:
        return [Message(SYSTEM, self.system)] if self.system else []


def _questions(messages: Sequence[Message]) -> list[int]:
    """Where the turns begin: the places of the user's messages."""
    return [place for place, message in enumerate(messages) if message.role == USER]
