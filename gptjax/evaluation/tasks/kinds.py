"""The four kinds of tasks: how a row becomes an item, the requests to the model, and how its answers are scored.

  multiple_choice  one prompt, several continuations: which one does the model find most likely?
  schema           several prompts, one continuation: after which one does the model find it most likely?
  continuation     one prompt, one continuation: is it the model's own greedy continuation, and how likely is it?
  generation       one prompt: how does the generated text compare with references?

If several choices are equally likely, each counts as a fraction of the model's choice, so a model for which all choices
are equally likely gets the score of guessing.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gptjax.evaluation.requests import Generated, LogLikelihood, Scored
from gptjax.evaluation.tasks.answers import ROUGE_KINDS, SCORES, rouge_scores
from gptjax.evaluation.tasks.template import fill, fill_all

CORPUS_METRICS = ("bleu", "chrf")  # computed from all answers together


class Unusable(Exception):
    """A row cannot become an item: it is left out and counted. The message is the reason, in the same words for all
    such rows."""


class WrongAnswer(Exception):
    """The right choice of a row cannot be read. The message says why."""


@dataclass(frozen=True)
class Item:
    """A question and its right answer, without few-shot examples.

    Attributes:
      id: unique within the task.
      number: the number of its row.
      member: the part of the task that it belongs to; "" if the task has none.
      known_as: see `readers.Row`.
      prompts, continuations: one of the two has a single element; the kind generation has no continuations.
      right: the number of the right choice.
      references: right answers of a generation.
      example: prompt and right answer, as a few-shot example for other items.
    """

    id: str
    number: int
    member: str
    known_as: tuple[str, ...]
    prompts: tuple[str, ...]
    continuations: tuple[str, ...] = ()
    right: int = 0
    references: tuple[str, ...] = ()
    example: str = ""


class Kind(abc.ABC):
    """A kind of task.

    Attributes:
      needs: the card's keys that must be given.
      metrics: the metrics to report by default.
      allowed: all metrics that it can report.
    """

    needs: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]]
    allowed: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def parts(self, card: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the Item for a row, from `prompts` on.

        Raises:
          Unusable, WrongAnswer, MissingField: the row cannot become an item.
        """

    @abc.abstractmethod
    def requests(self, card: Any, item: Item, before: str) -> Sequence[Scored | Generated]:
        """The requests to the model. before: the few-shot examples."""

    @abc.abstractmethod
    def judged(self, card: Any, item: Item, answers: Sequence[Any]) -> dict[str, Any]:
        """The record of an item: the model's answers and the item's value of each metric."""


def _filled(text: str, what: str) -> str:
    if not text.strip():
        raise Unusable(f"empty {what}")
    return text


def right_one(answer: str, labels: Sequence[str], count: int) -> int:
    """The number of the right choice among `count`: `answer` is a number from 0, a letter from A, or a label.

    Raises:
      WrongAnswer: `answer` does not name a choice.
    """
    if labels and len(labels) < count:
        raise WrongAnswer(f"has {count} choices, but labels names only {', '.join(labels)}")
    letters = [chr(ord("A") + k) for k in range(count)]
    names = list(labels) or [str(k) for k in range(count)]
    if answer in names[:count]:
        return names.index(answer)
    if not labels and answer in letters:
        return letters.index(answer)
    wanted = f"one of {', '.join(labels)}" if labels else f"a number from 0 to {count - 1} or a letter from A on"
    raise WrongAnswer(f"answer is {answer!r}, and must be {wanted}")


def _choice(scores: Sequence[float], right: int) -> tuple[int, float]:
    """The number of the first highest score, and 1 / ties if the right choice is among the highest scores, otherwise
    0."""
    if any(math.isnan(score) for score in scores):
        return 0, 0.0
    highest = [number for number, score in enumerate(scores) if score == max(scores)]
    return highest[0], (right in highest) / len(highest)


def _bits_per_byte(answer: LogLikelihood) -> float:
    return -answer.nats / math.log(2) / max(answer.bytes, 1)


def _truncated(answers: Sequence[Any]) -> int:
    return max(answer.truncated for answer in answers)


def _judged_choice(item: Item, answers: Sequence[LogLikelihood]) -> dict[str, Any]:
    """The part of a record that both kinds with choices share."""
    nats = [answer.nats for answer in answers]
    by_token = [answer.nats / max(answer.tokens, 1) for answer in answers]
    chosen, accuracy = _choice(nats, item.right)
    return {
        "nats": nats,
        "tokens": [answer.tokens for answer in answers],
        "chosen": chosen,
        "right": item.right,
        "truncated": _truncated(answers),
        "accuracy": accuracy,
        "accuracy_per_token": _choice(by_token, item.right)[1],
        "bits_per_byte": _bits_per_byte(answers[item.right]),
    }


class MultipleChoice(Kind):
    needs = ("choices", "answer")
    metrics = ("accuracy", "accuracy_per_token", "accuracy_per_byte", "bits_per_byte")
    allowed = (*metrics, "macro_f1")

    def parts(self, card: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        prompt = fill(card.prompt, values)
        choices = tuple(_filled(choice, "choice") for choice in fill_all(card.choices, values))
        if len(choices) < 2:
            raise Unusable("a single choice")
        right = right_one(fill(card.answer, values), card.labels, len(choices))
        solved = prompt + (card.delimiter if prompt else "") + (fill(card.example, values) or choices[right])
        return dict(prompts=(prompt,), continuations=choices, right=right, example=solved)

    def requests(self, card: Any, item: Item, before: str) -> list[Scored]:
        context = before + item.prompts[0] + (card.delimiter if item.prompts[0] else "")
        return [Scored(context, choice) for choice in item.continuations]

    def judged(self, card: Any, item: Item, answers: Sequence[Any]) -> dict[str, Any]:
        by_byte = [answer.nats / len(choice.encode()) for answer, choice in zip(answers, item.continuations)]
        return {
            "choices": list(item.continuations),
            **_judged_choice(item, answers),
            "accuracy_per_byte": _choice(by_byte, item.right)[1],
        }


class Schema(Kind):
    needs = ("contexts", "continuation", "answer")
    metrics = ("accuracy", "accuracy_per_token", "bits_per_byte")
    allowed = metrics

    def parts(self, card: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        contexts = tuple(_filled(context, "context") for context in fill_all(card.contexts, values))
        if len(contexts) < 2:
            raise Unusable("a single context")
        right = right_one(fill(card.answer, values), card.labels, len(contexts))
        continuation = _filled(fill(card.continuation, values), "continuation")
        solved = contexts[right] + card.delimiter + (fill(card.example, values) or continuation)
        return dict(prompts=contexts, continuations=(continuation,), right=right, example=solved)

    def requests(self, card: Any, item: Item, before: str) -> list[Scored]:
        return [Scored(before + prompt + card.delimiter, item.continuations[0]) for prompt in item.prompts]

    def judged(self, card: Any, item: Item, answers: Sequence[Any]) -> dict[str, Any]:
        return {
            "contexts": list(item.prompts),
            "continuation": item.continuations[0],
            **_judged_choice(item, answers),
        }


class Continuation(Kind):
    needs = ("continuation",)
    metrics = ("accuracy", "perplexity", "bits_per_byte")
    allowed = metrics

    def parts(self, card: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        prompt = _filled(fill(card.prompt, values), "prompt")
        continuation = _filled(fill(card.continuation, values), "continuation")
        solved = prompt + card.delimiter + (fill(card.example, values) or continuation)
        return dict(prompts=(prompt,), continuations=(continuation,), example=solved)

    def requests(self, card: Any, item: Item, before: str) -> list[Scored]:
        return [Scored(before + item.prompts[0] + card.delimiter, item.continuations[0])]

    def judged(self, card: Any, item: Item, answers: Sequence[Any]) -> dict[str, Any]:
        (answer,) = answers
        return {
            "continuation": item.continuations[0],
            "nats": answer.nats,
            "tokens": answer.tokens,
            "truncated": answer.truncated,
            "accuracy": float(answer.greedy),
            "bits_per_byte": _bits_per_byte(answer),
        }


class Generation(Kind):
    needs = ("references",)
    metrics = ()
    allowed = (*SCORES, *CORPUS_METRICS, *ROUGE_KINDS)

    def parts(self, card: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        prompt = _filled(fill(card.prompt, values), "prompt")
        references = tuple(text for text in fill_all(card.references, values) if text.strip())
        if not references:
            raise Unusable("empty reference")
        solved = prompt + card.delimiter + (fill(card.example, values) or references[0])
        return dict(prompts=(prompt,), references=references, example=solved)

    def requests(self, card: Any, item: Item, before: str) -> list[Generated]:
        prompt = (before + item.prompts[0] + card.delimiter).rstrip(" ")  # a blank belongs to the following word
        return [Generated(prompt, card.max_new_tokens, tuple(card.stop))]

    def judged(self, card: Any, item: Item, answers: Sequence[Any]) -> dict[str, Any]:
        (answer,) = answers
        text = answer.text.strip()
        found: dict[str, Any] = {
            "text": text,
            "references": list(item.references),
            "finish_reason": answer.finish_reason,
            "truncated": answer.truncated,
        }
        found |= {name: SCORES[name](text, item.references) for name in card.metrics if name in SCORES}
        if rouge := [name for name in card.metrics if name in ROUGE_KINDS]:
            found |= rouge_scores(text, item.references, rouge)
        return found


KINDS: dict[str, Kind] = {
    "multiple_choice": MultipleChoice(),
    "schema": Schema(),
    "continuation": Continuation(),
    "generation": Generation(),
}
