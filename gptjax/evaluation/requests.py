"""The requests of an evaluation to a model and the model's answers: log-likelihoods of continuations, and texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Scored:
    """Asks for log p(continuation | context)."""

    context: str
    continuation: str


@dataclass(frozen=True)
class Generated:
    """Asks for the text that the model generates greedily after a prompt, up to one of the stop texts."""

    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True)
class LogLikelihood:
    """log p(continuation | context).

    Attributes:
      nats: its natural logarithm, summed over the continuation's tokens.
      tokens, bytes: the size of the continuation, including the white space at the end of the context; of a
        continuation that is longer than the model's context, the size of the part that was scored.
      greedy: whether every scored token of the continuation is the most likely one at its position.
      truncated: the number of tokens that were left out because they did not fit: those at the beginning of the
        context, or at the end of the target of a pair.
    """

    nats: float
    tokens: int
    bytes: int
    greedy: bool
    truncated: int


@dataclass(frozen=True)
class Written:
    """The text that the model generated, without the stop text.

    truncated: the number of tokens of the prompt that did not fit.
    """

    text: str
    truncated: int
    finish_reason: str


class Answerer(Protocol):
    """A model that answers requests. Answers are yielded with the index of their request as soon as they are known, in
    any order."""

    def score(self, requests: Sequence[Scored]) -> Iterator[tuple[int, LogLikelihood]]: ...

    def generate(self, requests: Sequence[Generated]) -> Iterator[tuple[int, Written]]: ...
