"""Held-out loss, perplexity and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from gptjax.config import ConfigError


def perplexity(nll_per_token: float) -> float:
    """exp of a loss in nats a token; infinite rather than an error when that overflows."""
    return math.exp(nll_per_token) if nll_per_token < 709 else math.inf


def bits_per_byte(nll_sum: float, num_bytes: float) -> float:
    """A loss that tokenizers cannot change: summed nats, in bits, a UTF-8 byte of the text. NaN for no bytes."""
    return nll_sum / math.log(2) / num_bytes if num_bytes else math.nan


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
