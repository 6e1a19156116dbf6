"""The loss when text is seen more than once: two laws on top of any `Law` of unique data.

U unique tokens, D tokens trained on, R = D / U - 1 repetitions. `DiminishingReturns` discounts repeated tokens; its
loss never rises with them. `OverfittingPenalty` adds what memorising costs, and can rise: beyond a point, repeating
makes the model worse.

Where the constants come from:

  DiminishingReturns()   published, fitted by its authors to runs on C4
  OverfittingPenalty     none: its paper publishes the form and fits the constants to each corpus, since they depend on
                         the text and on the weight decay
  ON_C4                  fitted by this project to published runs on C4 (experiments/scaling_laws/repetition.py)
  fit_coefficient(…)     the coefficient is fitted to a few of your runs, with the exponents of ON_C4
  fit_penalty(…)         all constants are fitted to seven or more of your runs
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import scipy  # imports scipy.optimize, which takes long, when it is first used

from gptjax.display.formatting import counted
from gptjax.errors import ConfigError
from gptjax.scaling.fit import OWN, Points
from gptjax.scaling.laws import FLOPS_PER_PARAMETER_AND_TOKEN, LAWS, Law

TURN = 1e-2  # where the Huber loss of `fit_penalty` turns from a square into a line


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

    Only this form is published: the paper fits all three constants per corpus, so they have no defaults. Weight decay
    of 1.0 lowers its penalty by some 70 %.

    Attributes:
      penalty: the nats that one repetition costs a model of as many parameters as there are unique tokens.
      delta, kappa: exponents of the repetitions, and of the parameters per unique token.
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
# By experiments/scaling_laws/repetition.py: 7M to 8.7B parameters, 0.1B to 178B unique tokens, up to 60 epochs.
ON_C4 = OverfittingPenalty(
    0.00915, 0.871, 0.755, "the form of arXiv:2605.01640, fitted to the runs of arXiv:2305.16264 on C4"
)


def fit_penalty(points: Points, unique_tokens: np.ndarray) -> tuple[Law, OverfittingPenalty]:
    """E, A, B, alpha = beta and the penalty of runs on repeated data, by robust regression of the log losses.

    All are fitted together: the few runs of a study that see their text once do not determine the law. The search
    starts from the law of Muennighoff et al. 2023, whose exponents are equal, too.

    Args:
      points: a row per run. unique_tokens: of each run [rows].

    Raises:
      ConfigError: there are fewer runs than constants, or none repeats its text.
    """
    repeats = np.maximum(points.tokens / unique_tokens - 1, 0)
    repeated = repeats > 0
    if len(repeats) < 7 or not repeated.any():
        raise ConfigError(
            f"scaling law: {counted(len(repeats), 'run')}, of which {repeated.sum()} repeat their text: the law has 7 "
            "constants, and needs as many runs"
        )
    log_n, log_d, log_u = (np.log(each) for each in (points.parameters, points.tokens, unique_tokens))
    log_r, log_loss = np.log(np.where(repeated, repeats, 1.0)), np.log(points.losses)

    def residuals(x: np.ndarray) -> np.ndarray:
        a, b, e, alpha, penalty, delta, kappa = x
        unique = np.logaddexp(np.logaddexp(a - alpha * log_n, b - alpha * log_d), e)
        extra = np.where(repeated, penalty + delta * log_r + kappa * (log_n - log_u), -np.inf)
        return np.logaddexp(unique, extra) - log_loss

    near = LAWS["muennighoff"]
    start = [np.log(near.A), np.log(near.B), np.log(near.E), near.alpha]
    tried = [
        scipy.optimize.least_squares(
            residuals, [*start, penalty, 1.0, kappa], loss="huber", f_scale=TURN, x_scale="jac"
        )
        for penalty in (-6.0, -3.0)
        for kappa in (0.3, 1.0)
    ]
    a, b, e, alpha, penalty, delta, kappa = min(tried, key=lambda found: found.cost).x.tolist()
    A, B, E, P = np.exp([a, b, e, penalty]).tolist()
    return Law(E, A, B, alpha, alpha, OWN, points.counts), OverfittingPenalty(P, delta, kappa, OWN)


def fit_coefficient(
    points: Points, unique_tokens: np.ndarray, law: Law, shape: OverfittingPenalty = ON_C4
) -> OverfittingPenalty:
    """The penalty's coefficient of a few runs that repeat one text, by least squares of their losses.

    Args:
      points: a row per run. unique_tokens: of each run [rows].
      law: of unique text like this, such as one that `scaling.fit.parametric` fitted to runs that repeat nothing.
      shape: has the exponents, which are kept.

    Raises:
      ConfigError: no run repeats its text, or the runs are better than the law says without any penalty.
    """
    repeats = np.maximum(points.tokens / unique_tokens - 1, 0)
    if not (repeats > 0).any():
        raise ConfigError(f"scaling law: {counted(len(repeats), 'run')}, of which none repeats its text")
    extra = points.losses - law.loss(points.parameters, points.tokens)
    form = repeats**shape.delta * (points.parameters / unique_tokens) ** shape.kappa
    penalty = float(form @ extra / (form @ form))
    if penalty < 0:
        raise ConfigError(
            "scaling law: the runs that repeat their text have lower losses than the law of unique text: fit that law "
            "to runs on this text first"
        )
    return OverfittingPenalty(penalty, shape.delta, shape.kappa, OWN)


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
