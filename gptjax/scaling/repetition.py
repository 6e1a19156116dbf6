"""The loss when text is seen more than once: two laws on top of any `Law` of unique data.

U unique tokens, D tokens trained on, R = D / U - 1 repetitions. `DiminishingReturns` discounts repeated tokens; its
loss never rises with them. `OverfittingPenalty` adds what memorising costs, and can rise: beyond a point, repeating
makes the model worse. Its coefficient depends on the text and on the weight decay and must be fitted.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import scipy.optimize

from gptjax.errors import ConfigError
from gptjax.scaling.laws import FLOPS_PER_PARAMETER_AND_TOKEN, Law


class Repetition(Protocol):
    """A law for repeated data."""

    @property
    def source(self) -> str: ...

    def loss(self, law: Law, parameters: float, tokens: float, unique_tokens: float) -> float:
        """The loss after `tokens` tokens drawn from `unique_tokens`, where `law` holds for unique data."""
        ...


@dataclasses.dataclass(frozen=True)
class DiminishingReturns:
    """Repeated tokens and excess parameters count for less and less (Muennighoff et al. 2023, equations 5 and 7).

    D' = U + U · R*_D · (1 - exp(-R / R*_D)), and the same for parameters beyond those that suit U tokens; then
    L(N', D').

    Attributes:
      of_tokens: R*_D. Repeating endlessly is worth as much as this many times the unique tokens, on top of them.
      of_parameters: R*_N, the same for parameters.
    """

    of_tokens: float = 15.387756
    of_parameters: float = 5.309743
    source: str = "Muennighoff et al. 2023, arXiv:2305.16264"

    def effective_tokens(self, tokens: float, unique_tokens: float) -> float:
        """The unique tokens that `tokens` from `unique_tokens` are worth."""
        _check(tokens, unique_tokens)
        return _discounted(tokens, min(tokens, unique_tokens), self.of_tokens)

    def effective_parameters(self, law: Law, parameters: float, unique_tokens: float) -> float:
        """What `parameters` are worth: those beyond the best size for the unique tokens are discounted."""
        return _discounted(parameters, min(parameters, law.optimal_parameters(unique_tokens)), self.of_parameters)

    def loss(self, law: Law, parameters: float, tokens: float, unique_tokens: float) -> float:
        """The loss after `tokens` tokens drawn from `unique_tokens`.

        Raises:
          ConfigError: there are no unique tokens.
        """
        data = self.effective_tokens(tokens, unique_tokens)
        return law.loss(self.effective_parameters(law, parameters, min(tokens, unique_tokens)), data)


@dataclasses.dataclass(frozen=True)
class OverfittingPenalty:
    """L = law(N, D) + penalty · R^delta · (N / U)^kappa (Lovelace et al. 2026).

    The paper fits all three per corpus, so they have no defaults. Weight decay of 1.0 lowers its penalty by some 70 %.
    """

    penalty: float
    delta: float
    kappa: float
    source: str = "Lovelace et al. 2026, arXiv:2605.01640"

    def loss(self, law: Law, parameters: float, tokens: float, unique_tokens: float) -> float:
        """The loss after `tokens` tokens drawn from `unique_tokens`.

        Raises:
          ConfigError: there are no unique tokens.
        """
        _check(tokens, unique_tokens)
        repeats = max(tokens / unique_tokens - 1, 0.0)
        return (
            law.loss(parameters, tokens)
            + self.penalty * repeats**self.delta * (parameters / unique_tokens) ** self.kappa
        )


REPETITION: Repetition = DiminishingReturns()


def optimal(law: Law, repetition: Repetition, flops: float, unique_tokens: float) -> tuple[float, float]:
    """Returns the (parameters, tokens) of the lowest loss with 6 · parameters · tokens = flops and repeated data."""
    around = np.log(law.optimal(flops)[0])

    def loss(log_parameters: float) -> float:
        parameters = float(np.exp(log_parameters))
        tokens = flops / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)
        return repetition.loss(law, parameters, tokens, unique_tokens)

    grid = around + np.linspace(-12, 12, 241)
    lowest = grid[int(np.argmin([loss(each) for each in grid]))]
    found = scipy.optimize.minimize_scalar(loss, bounds=(lowest - 0.1, lowest + 0.1), method="bounded")
    parameters = float(np.exp(found.x))
    return parameters, flops / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)


def _check(tokens: float, unique_tokens: float) -> None:
    if not unique_tokens > 0:
        raise ConfigError(f"{unique_tokens:g} unique tokens: must be more than 0, to train on {tokens:g}")


def _discounted(total: float, full: float, worth: float) -> float:
    """`full` ones at their full value, and those beyond at a value that decays."""
    return full + full * worth * -float(np.expm1(-(total / full - 1) / worth))
