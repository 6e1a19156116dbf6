"""One pass over held-out batches: the device computes sums, the host adds them up and computes the scores at the
end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gptjax.data import Dataset
from gptjax.evaluation.scores import SET
from gptjax.parallel.distributed import local_rows, put_batch

Sums = Mapping[str, jax.Array]


def validate(
    evaluation_step: Callable[[Any, Mapping[str, jax.Array]], Sums],
    scores_of: Callable[[Mapping[str, float]], dict[str, float]],
    params: Any,
    dataset: Dataset,
    mesh: Mesh,
    batch_size: int,
) -> dict[str, Any]:
    """The scores of all rows of a validation split, and the identity of these rows (SET).

    Rows go through the model `batch_size` at a time, over all devices and processes; the last batch is padded with rows
    of weight 0, so the scores depend on `batch_size` only through rounding. All processes call this together.

    Args:
      evaluation_step: (params, batch) → sums over the batch, as compiled by `Trainer.evaluation_step`.
      scores_of: sums over the whole set → scores by name, as `Objective.scores_of`. Its errors are not caught.
    """
    rows = local_rows(mesh, batch_size, 1)
    batches = (put_batch(mesh, batch, rows, batch_size, 1) for batch in dataset.batches(0, rows))
    return {**scores_of(summed(evaluation_step, params, batches)), SET: dataset.identity()}


def summed(evaluation_step: Callable, params: Any, batches: Iterable[Mapping[str, jax.Array]]) -> dict[str, Any]:
    """The step's sums over all batches by name, in double precision; empty if there is no batch."""
    totals: dict[str, Any] = {}

    def add(sums: Sums) -> None:
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)[()]

    pending: Sums | None = None
    for batch in batches:
        current = evaluation_step(params, batch)
        if pending is not None:  # read the previous sums while the device works on this batch
            add(pending)
        pending = current
    if pending is not None:
        add(pending)
    return totals
