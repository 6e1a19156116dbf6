"""Durations in a config, in steps, tokens, epochs or percent of a run."""

from __future__ import annotations

import dataclasses
import math
import re

from gptjax.errors import ConfigError

MOST_STEPS = 2**31 - 1  # steps are counted in int32
_DURATION = re.compile(r"\s*(\d+(?:_\d+)*(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kKMGBT]?)\s*(steps?|tokens?|epochs?|%)?\s*")
_MULTIPLES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


@dataclasses.dataclass(frozen=True)
class Units:
    """Converts durations in any unit to steps.

    Attributes:
      tokens_per_step: tokens that one optimizer step consumes.
      steps_per_epoch: steps in one pass over the training data; None without data.
      total_steps: length of the run in steps, for durations in percent; None while it is not known.
    """

    tokens_per_step: int
    steps_per_epoch: float | None = None
    total_steps: int | None = None

    def steps(self, text: str | int, field: str) -> int:
        """'500 steps', '500', '300M tokens', '2 epochs' or '5%' → steps, rounded up.

        Raises:
          ConfigError: the text is not a duration, or its unit cannot be used here.
        """
        match = _DURATION.fullmatch(str(text))
        if not match:
            raise ConfigError(
                f"{field} = {text!r}: expected a duration such as '500 steps', '300M tokens' or '2 epochs'"
            )
        amount = float(match[1]) * _MULTIPLES[match[2]]
        if not math.isfinite(amount):
            raise ConfigError(f"{field} = {text!r}: the number is too large")
        unit = (match[3] or "step").rstrip("s")
        if unit == "token":
            amount /= self.tokens_per_step
        elif unit == "epoch":
            if self.steps_per_epoch is None:
                raise ConfigError(f"{field} = {text!r}: epochs require data; set data.path")
            amount *= self.steps_per_epoch
        elif unit == "%":
            if self.total_steps is None:
                raise ConfigError(f"{field} = {text!r}: cannot be a percentage; give steps, tokens or epochs")
            amount *= self.total_steps / 100
        if amount > MOST_STEPS:
            raise ConfigError(f"{field} = {text!r}: {amount:.3g} steps; must be at most {MOST_STEPS:,} steps")
        return math.ceil(amount - 1e-6)
