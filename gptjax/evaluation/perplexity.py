"""Held-out loss, perplexity and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from gptjax.config import ConfigError


def evaluate_perplexity(
    evaluation_step: Callable, params: Any, batches: Iterable[Mapping[str, jax.Array]]
) -> dict[str, float]:
    """Sums over all batches first, divides once: batches of unequal weight count by their tokens.

    Args:
      evaluation_step: (params, batch) → sums of nll (nats), tokens and bytes, as `training.step` makes it.

    Returns:
      validation/loss (nats a token), validation/perplexity, validation/bits_per_byte (independent of the tokenizer;
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
        raise ConfigError("the validation split has no supervised token: prepare it with a larger --validation_fraction")
    loss = sums["nll"] / sums["tokens"]
    metrics = {
        "validation/loss": loss,
        "validation/perplexity": math.exp(min(loss, 700.0)),  # e^700 is the last that fits a float
        "validation/tokens": sums["tokens"],
    }
    if sums["bytes"]:
        metrics["validation/bits_per_byte"] = sums["nll"] / math.log(2) / sums["bytes"]
    return metrics
