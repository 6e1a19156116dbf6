"""Published scaling laws as data: the loss of N parameters after D tokens, how to split a budget, how to tune.

    LAWS          the loss, L(N, D) = E + A / N^alpha + B / D^beta in nats per token, and the best split of a budget
    ALLOCATIONS   the split alone, N ∝ C^a, from papers that publish no loss
    TUNING        the best learning rate and batch

Every constant here is a published one, with the paper that has it as `source`; none is fitted by this project. Laws of
repeated text, whose constants are partly fitted, are in `repetition.py`.

A budget of C FLOPs trains N parameters on D = C / (6 N) tokens. Each law says in `counts` which parameters its N means,
by the names of `gptjax.model.parameters.ParameterCounts`. A loss depends on the tokenizer and the text: a published law
compares sizes and budgets, but does not forecast a run on other text (`gptjax.scaling.fit` does).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from gptjax.errors import ConfigError

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
Number = TypeVar("Number", float, np.ndarray)


@dataclasses.dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token.

    Attributes:
      E: the lower limit of the loss, for any model and any amount of data.
      A, alpha: the term of the parameters. B, beta: the term of the tokens.
      source: the paper, with its arXiv number.
      counts: 'total' or 'non_embedding': which parameters N counts.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    source: str
    counts: str = "total"

    def loss(self, parameters: Number, tokens: Number) -> Number:
        """The loss of a model of this size after this many unique tokens."""
        return self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta

    @property
    def exponent(self) -> float:
        """The a of N ∝ C^a at the best split; D ∝ C^(1 - a)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def _size(self) -> float:
        """N of the best split = this · (C / 6)^exponent (equation 4 of arXiv:2203.15556)."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    def optimal(self, flops: Number) -> tuple[Number, Number]:
        """Returns the (parameters, tokens) of the lowest loss among those with 6 · parameters · tokens = flops."""
        parameters = self._size * (flops / FLOPS_PER_PARAMETER_AND_TOKEN) ** self.exponent
        return parameters, flops / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)

    def optimal_tokens(self, parameters: Number) -> Number:
        """The number of tokens for which a model of this size is the best for its budget."""
        return (parameters / self._size) ** (1 / self.exponent) / parameters

    def optimal_parameters(self, tokens: Number) -> Number:
        """The size for which this number of tokens is the best for the budget."""
        return (tokens * self._size) ** (1 / (1 - self.exponent)) / tokens

    def flops_for(self, loss: float) -> float:
        """The fewest FLOPs that reach this loss.

        Raises:
          ConfigError: no budget reaches it.
        """
        if loss <= self.E:
            raise ConfigError(f"a loss of {loss:g} is out of reach: it must be above {self.E:.4g} by {self.source}")
        at_one = self.A * self._size**-self.alpha + self.B * self._size**self.beta
        return FLOPS_PER_PARAMETER_AND_TOKEN * (at_one / (loss - self.E)) ** (1 / self.alpha + 1 / self.beta)


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The best size for a budget: N = parameters · (C / flops)^exponent.

    flops, parameters: one budget and its best size. exponent: the a of N ∝ C^a. source, counts: as in `Law`.
    """

    flops: float
    parameters: float
    exponent: float
    source: str
    counts: str = "total"

    def optimal(self, flops: Number) -> tuple[Number, Number]:
        """Returns the best (parameters, tokens) with 6 · parameters · tokens = flops."""
        parameters = self.parameters * (flops / self.flops) ** self.exponent
        return parameters, flops / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """scale · N^parameters · D^tokens."""

    scale: float
    parameters: float = 0.0
    tokens: float = 0.0

    def __call__(self, parameters: Number, tokens: Number) -> Number:
        return self.scale * parameters**self.parameters * tokens**self.tokens

    @classmethod
    def of_flops(cls, scale: float, exponent: float) -> PowerLaw:
        """scale · C^exponent."""
        return cls(scale * FLOPS_PER_PARAMETER_AND_TOKEN**exponent, exponent, exponent)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """AdamW's best peak learning rate and the best batch in tokens, each by N and D. source, counts: as in `Law`."""

    learning_rate: PowerLaw
    batch_tokens: PowerLaw
    source: str
    counts: str = "non_embedding"


DEFAULT = "besiroglu"
LAWS: Mapping[str, Law] = {
    # The corrected fit to Chinchilla's own runs, read from the vector graphics of its figure 4.
    "besiroglu": Law(1.8172, 482.01, 2085.43, 0.3478, 0.3658, "Besiroglu et al. 2024, arXiv:2404.10102"),
    # Approach 3. The paper prints 0.34 and 0.28, which are too coarse to use: at 5.76e23 FLOPs they ask for 93 tokens
    # per parameter instead of 59. These digits are from the source of the paper, by way of arXiv:2404.10102.
    "chinchilla": Law(
        math.exp(0.5267228),
        math.exp(6.0073404),
        math.exp(6.0179186),
        0.33917084,
        0.2849083,
        "Hoffmann et al. 2022, approach 3 unrounded, arXiv:2203.15556",
    ),
    # The base of a law for repeated data (`repetition.py`), fitted with alpha = beta on C4.
    "muennighoff": Law(
        math.exp(0.6254804),
        math.exp(6.255414),
        math.exp(7.3049974),
        0.3526596,
        0.3526596,
        "Muennighoff et al. 2023, arXiv:2305.16264",
    ),
}

ALLOCATIONS: Mapping[str, Allocation] = {
    # Each through the row of 67 B parameters of the paper's table for its approach.
    "chinchilla_envelope": Allocation(5.76e23, 67e9, 0.50, "Hoffmann et al. 2022, approach 1, arXiv:2203.15556"),
    "chinchilla_isoflop": Allocation(6.88e23, 67e9, 0.49, "Hoffmann et al. 2022, approach 2, arXiv:2203.15556"),
    # M = 0.1715 · C^0.5243 training FLOPs per token, attention included: N here is M / 6.
    "deepseek": Allocation(
        1.0,
        0.1715 / FLOPS_PER_PARAMETER_AND_TOKEN,
        0.5243,
        "Bi et al. 2024 (DeepSeek LLM), arXiv:2401.02954",
        "non_embedding",
    ),
    # D = 0.29 · C^0.53 tokens. For a cross-check only: at the paper's own budget of 3.8e25 FLOPs these digits give
    # 10.5 T tokens, and the paper says 16.55 T, for which the exponent would have to be 0.5378.
    "llama3": Allocation(
        1.0,
        1 / (FLOPS_PER_PARAMETER_AND_TOKEN * 0.29),
        1 - 0.53,
        "Grattafiori et al. 2024 (Llama 3), for a cross-check only, arXiv:2407.21783",
    ),
}

TUNING: Mapping[str, Tuning] = {
    "step_law": Tuning(
        PowerLaw(1.79, parameters=-0.713, tokens=0.307),
        PowerLaw(0.58, tokens=0.571),
        "Li et al. 2025 (Step Law), final learning rate 1e-5, arXiv:2503.04715",
    ),
    "deepseek": Tuning(
        PowerLaw.of_flops(0.3118, -0.125),
        PowerLaw.of_flops(0.2920, 0.3271),
        "Bi et al. 2024 (DeepSeek LLM), arXiv:2401.02954",
    ),
}
