"""Verifiable rewards: functions (prompt, text, answer) → a number, which compare a model's text with a known answer.

`training.reward` names one of `REWARDS`, or your own as 'module:function'. Functions run on the host and must depend on
their arguments alone, so that a run continues exactly.
"""

from __future__ import annotations

from collections.abc import Callable

from gptjax.config.named_functions import called, is_named, named_function
from gptjax.evaluation.tasks import answers

Reward = Callable[[str, str, str], float]
FIELD = "training.reward"


def exact(prompt: str, text: str, answer: str) -> float:
    """1 if the text is the answer, apart from spaces around it."""
    return float(text.strip() == answer.strip())


def final_number(prompt: str, text: str, answer: str) -> float:
    """1 if the final number of the text equals that of the answer, by the rule by which evaluations find it."""
    found = answers.final_number(text)
    return float(found is not None and found == answers.final_number(answer))


REWARDS: dict[str, Reward] = {"exact": exact, "final_number": final_number}


def reward_named(name: str) -> Reward:
    """The function that `training.reward` names. Raises ConfigError if a user's function cannot be imported."""
    if not is_named(name):
        return REWARDS[name]
    own = named_function(FIELD, name)
    return lambda prompt, text, answer: float(called(FIELD, name, lambda: own(prompt, text, answer)))
