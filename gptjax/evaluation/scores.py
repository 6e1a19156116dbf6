"""The name of a score, how it is shown, and which of two values is better."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

SET = "validation/set"  # stored beside the scores of an evaluation: the `Dataset.identity` of the windows scored


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of an evaluation.

    Attributes:
      name: its key in metrics.jsonl, such as 'validation/loss'.
      words: the label of an axis, with the unit in parentheses.
      line: its format on the console: 'loss {:.4f}'.
      higher_is_better: True for an accuracy, False for a loss.
    """

    name: str
    words: str
    line: str
    higher_is_better: bool = False

    @property
    def title(self) -> str:
        """Its name in words: 'bits per byte'."""
        return self.name.rpartition("/")[2].replace("_", " ")

    def better(self, a: float, b: float) -> bool:
        """Whether a is a better value than b. A value that is not finite is never better than one that is."""
        if math.isfinite(a) != math.isfinite(b):
            return math.isfinite(a)
        return a > b if self.higher_is_better else a < b

    @property
    def worst(self) -> float:
        """The value than which every other value is better."""
        return -math.inf if self.higher_is_better else math.inf

    def best(self, values: Iterable[float]) -> float:
        """The best of the finite values; `worst` if no value is finite."""
        finite = [value for value in values if math.isfinite(value)]
        return (max if self.higher_is_better else min)(finite, default=self.worst)


LOSS = Score("validation/loss", "validation loss (nats per token)", "loss {:.4f}")
PERPLEXITY = Score("validation/perplexity", "validation perplexity", "perplexity {:.2f}")
BITS_PER_BYTE = Score("validation/bits_per_byte", "validation loss (bits per byte)", "{:.4f} bits per byte")
MASKED_LOSS = Score("validation/loss", "validation loss (nats per masked token)", "loss {:.4f}")
ACCURACY = Score("validation/accuracy", "validation accuracy", "accuracy {:.2%}", higher_is_better=True)
