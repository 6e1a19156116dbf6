"""The interface between the training loop and what it optimizes."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.text import Text

from gptjax.data import Dataset
from gptjax.evaluation.scores import Score
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer
from gptjax.training.routing import balanced, router_losses, router_metrics

Batch = Mapping[str, jax.Array]


class Objective(abc.ABC):
    """What a run optimizes and how it is scored. The loop, the step, the trainer and "best" use only this interface.

    A new objective is a file in this folder and a row of `OBJECTIVES`. For an objective outside of the package, set
    `training.objective = 'module:Class'`. Objects hold the config but no state.

    Attributes:
      config: the run's config, resolved.
      scores: the scores of an evaluation, in the order in which they are shown. The first decides which checkpoint is
        the best.
    """

    scores: tuple[Score, ...]

    def __init__(self, config: Settings):
        self.config = config

    # --- Data

    @property
    def windows(self) -> str:
        """How rows are made from the data: a key of gptjax.data.dataset.WINDOWS."""
        return self.config.data.windows

    @property
    def is_packed(self) -> bool:
        """Whether a row may hold several documents or pairs, which segments distinguish."""
        return self.windows != "contiguous"

    @abc.abstractmethod
    def open_data(self, split: str, batch_size: int) -> Dataset:
        """The 'train' or 'validation' split that this objective reads, as batches of `batch_size` rows.

        Raises:
          ConfigError: names the invalid field or file.
        """

    def shown_row(self, data: Dataset, tokenizer: Tokenizer) -> Text | None:
        """A row of the first batch of `data` for people to check before the run, such as where its loss is."""
        return None

    @abc.abstractmethod
    def row_fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The arrays of one row of a batch: name → shape without the leading batch axis, and dtype."""

    def rollout(self, mesh: Mesh, tokenizer: Tokenizer) -> Callable[[Any, Batch, int], Batch]:
        """The function (params, batch of the data, step) → batch of `row_fields`: by default the batch itself.

        An objective that learns from what its model writes makes its batch here (training/rollout.py). The result must
        depend on the arguments and the config alone, so that a run continues exactly. All processes call it together.
        """
        return lambda params, batch, step: batch

    @property
    def updates_per_rollout(self) -> int:
        """The number of steps whose batches are made together. A run can be saved, and can end, only between such
        groups of steps."""
        return 1

    # --- Training

    @property
    def companions(self) -> Mapping[str, str]:
        """The models that the loss reads but does not train: name → field of the config that names the model's run.

        `loss`, and the function that `evaluation` returns, get each of them as a keyword argument of that name
        (training/companions.py).
        """
        return {}

    @property
    def reads_companions_once(self) -> bool:
        """Whether the companions are read by `columns` alone. Their memory is then free before the first step, and
        neither `loss` nor `evaluation` gets them."""
        return False

    def columns(self, batch: Batch, **companions: Any) -> dict[str, jax.Array]:
        """What later batches contain of the companions, [B] by name, computed once for each row of the data
        (training/columns.py). `row_fields` has these arrays, too, but `batch` does not.

        Called only if `reads_companions_once`.
        """
        return {}

    @property
    def reads_own_base(self) -> bool:
        """Whether the loss reads the model without its adapters, as what the run started from."""
        return False

    @abc.abstractmethod
    def weight(self, batch: Batch) -> jax.Array:
        """The divisor of a batch's loss: a float32 scalar, such as the number of supervised tokens."""

    @abc.abstractmethod
    def loss(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a batch, before it is divided by its weight.

        Args:
          batch: the arrays of `row_fields`, each [B, …].
          dropout_keys_B: a key per row (model/dropout.py); None: no dropout.

        Returns:
          The sum to differentiate, including auxiliary losses (means are multiplied by the batch's weight); and figures
          to report: float32 by name, each a sum over the batch that the step divides by the weight. The figure 'loss'
          is shown as the training loss. `metrics` decides what is shown: NAME becomes train/NAME.
        """

    def auxiliary(
        self, statistics: Mapping[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """Auxiliary losses and figures from the statistics that the model's blocks report, such as a router's load.

        Args:
          statistics: name → [L, B, …], as `hidden` of the model returns them; empty for blocks that report nothing.

        Returns:
          The sum to add to the loss, or None; and figures to report. Both are sums over the batch, as `loss` returns
          them: a mean over tokens or rows is multiplied by their weight.
        """
        weight_B = jax.vmap(lambda row: self.weight(jax.tree.map(lambda array: array[None], row)))(dict(batch))
        return router_losses(statistics, weight_B, self.config.training)

    def adjusted(self, params: Any, figures: Mapping[str, jax.Array]) -> Any:
        """The parameters after an update, with changes to parameters that have no gradient: the biases of routers.

        Args:
          figures: of the whole batch, as `loss` returns them, divided by its weight.
        """
        return balanced(params, figures, self.config.training.router_bias_rate)

    def metrics(self, figures: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """What to report, by name, from the figures of a whole batch: scalars, which are averaged over several steps,
        and arrays, which metrics.jsonl has for single steps."""
        return router_metrics(figures)

    def trains(self, path: str) -> bool:
        """Whether the parameter with this path ('layers/attention/query') is updated."""
        return True

    # --- Evaluation

    @abc.abstractmethod
    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[..., dict[str, jax.Array]]:
        """A pure function (params, batch, **companions) → float32 sums over the batch, which `scores_of` turns into
        scores."""

    @abc.abstractmethod
    def scores_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Turns sums over a whole set into scores by name.

        Raises:
          ConfigError: there is nothing to score.
        """


def abstract_batch(
    objective: Objective, num_micro: int, rows: int, sharding_of: Callable[[int], Any] | None = None
) -> dict[str, Any]:
    """A batch of `num_micro` micro-batches of `rows` rows as shapes: name → [A, B, …].

    sharding_of: number of axes of a row's array → sharding of the batch.
    """

    def of_batch(field: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = None if sharding_of is None else sharding_of(len(field.shape))
        return jax.ShapeDtypeStruct((num_micro, rows, *field.shape), field.dtype, sharding=sharding)

    return {name: of_batch(field) for name, field in objective.row_fields().items()}


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """float32 [V]: UTF-8 bytes of each token's text; 0 for tokens that the tokenizer does not have."""
    token_bytes_V = np.zeros(vocab_size, np.float32)
    token_bytes_V[: tokenizer.vocab_size] = tokenizer.token_bytes()
    return token_bytes_V
