"""Rewards that can be verified: functions (prompt, text, answer) → a number, of what a model wrote and a known answer.

`training.reward` names one of `REWARDS`, or your own as 'module:function'. Functions run on the host and must depend on
their arguments alone, so that a run continues exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from gptjax.user_code import called, is_named, named_function

Reward = Callable[[str, str, str], float]
FIELD = "training.reward"
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
MARK = "####"  # GSM8K writes its final answer after it


def exact(prompt: str, text: str, answer: str) -> float:
    """1 if the text is the answer, apart from spaces around it."""
    return float(text.strip() == answer.strip())


def final_number(prompt: str, text: str, answer: str) -> float:
    """1 if the final number of the text equals that of the answer: the first one after MARK, otherwise the last one."""
    found, wanted = last_number(text), last_number(answer)
    return float(found is not None and found == wanted)


def last_number(text: str) -> Decimal | None:
    """The final number of a text, whose thousands may be separated by commas; None if there is none."""
    _, mark, after = text.rpartition(MARK)
    numbers = _NUMBER.findall(after if mark else text)
    if not numbers:
        return None
    try:
        return Decimal((numbers[0] if mark else numbers[-1]).replace(",", ""))
    except InvalidOperation:
        return None


REWARDS: dict[str, Reward] = {"exact": exact, "final_number": final_number}


def reward_named(name: str) -> Reward:
    """The function that `training.reward` names. Raises ConfigError if a user's function cannot be imported."""
    if not is_named(name):
        return REWARDS[name]
    own = named_function(FIELD, name)
    return lambda prompt, text, answer: float(called(FIELD, name, lambda: own(prompt, text, answer)))
