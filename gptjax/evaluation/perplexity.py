"""Held-out loss, perplexity and bits per byte: figures of a model and a set of windows, however they are computed.

Contiguous and packed windows score the same tokens and the same bytes, whatever their length. They differ only in how
much of a text a token is predicted from.

- Every token of a document's text is scored, also the first one, which is predicted from the begin token.
- EOS is scored. It stands for no byte, so bits per byte include the cost of ending each text.
- BOS, where documents begin with it, is given and never scored.
- `<unk>`, which only character tokenizers have, counts as one byte and costs what `<unk>` costs, although the character
  cannot be read back from it. The figures of a text with many such characters are too good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from gptjax.config import ConfigError
from gptjax.data import Dataset
from gptjax.parallel.distributed import local_rows, put_batch

SET = "validation/set"  # beside every score: `Dataset.identity` of what was scored


def perplexity(nll_per_token: float) -> float:
    """exp of a loss in nats per token; infinite rather than an error when that overflows."""
    return math.exp(nll_per_token) if nll_per_token < 709 else math.inf


def bits_per_byte(nll_sum: float, num_bytes: float) -> float:
    """A loss that tokenizers cannot change: summed nats, in bits, a UTF-8 byte of the text. NaN for no bytes."""
    return nll_sum / math.log(2) / num_bytes if num_bytes else math.nan


def score(evaluation_step: Callable, params: Any, dataset: Dataset, mesh: Mesh, batch_size: int) -> dict[str, Any]:
    """The figures of `evaluate_perplexity` for all windows of a validation split, and which windows these were (SET).

    Windows go through the model `batch_size` at a time, over all devices and processes; what is left of the last batch
    is filled with weight 0, so the figures do not depend on it beyond rounding. All processes call this together.

    Raises as `evaluate_perplexity` does.
    """
    rows = local_rows(mesh, batch_size, 1)
    batches = (put_batch(mesh, batch, rows, batch_size, 1) for batch in dataset.batches(0, rows))
    return {**evaluate_perplexity(evaluation_step, params, batches), SET: dataset.identity()}


def evaluate_perplexity(
    evaluation_step: Callable, params: Any, batches: Iterable[Mapping[str, jax.Array]]
) -> dict[str, float]:
    """Sums over all batches first, divides once: batches of unequal weight count by their tokens.

    Args:
      evaluation_step: (params, batch) → sums of nll (nats), tokens and bytes, as `training.step` makes it.

    Returns:
      validation/loss (nats per token), validation/perplexity, validation/bits_per_byte (independent of the tokenizer;
      left out where no token stands for a byte of text), validation/tokens.

    Raises:
      ConfigError: nothing to evaluate.
    """
    sums = {"nll": 0.0, "tokens": 0.0, "bytes": 0.0}
    pending: dict[str, jax.Array] | None = None
    for batch in batches:
        current = evaluation_step(params, batch)
        if pending is not None:  # read the last one while the device works on this one
            sums = {name: sums[name] + float(pending[name]) for name in sums}
        pending = current
    if pending is not None:
        sums = {name: sums[name] + float(pending[name]) for name in sums}
    if not sums["tokens"]:
        raise ConfigError("the validation split has no supervised token: prepare a larger one")
    loss = sums["nll"] / sums["tokens"]
    metrics = {
        "validation/loss": loss,
        "validation/perplexity": perplexity(loss),
        "validation/tokens": sums["tokens"],
    }
    if sums["bytes"]:
        metrics["validation/bits_per_byte"] = bits_per_byte(sums["nll"], sums["bytes"])
    return metrics
