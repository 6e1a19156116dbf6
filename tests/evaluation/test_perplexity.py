"""Sums before division: batches of unequal weight count by their tokens."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ConfigError, default
from gptjax.evaluation.perplexity import bits_per_byte, evaluate_perplexity, perplexity, score
from gptjax.parallel.mesh import make_mesh


def test_perplexity_and_bits_per_byte():
    assert perplexity(math.log(50)) == pytest.approx(50) and perplexity(1e4) == math.inf
    assert bits_per_byte(math.log(256) * 10, 10) == pytest.approx(8.0)  # uniform over bytes
    assert math.isnan(bits_per_byte(0.0, 0))


def sums_of(params, batch):
    return {name: jnp.float32(value * params) for name, value in batch.items()}


def test_batches_count_by_their_tokens():
    batches = [dict(nll=30.0, tokens=10.0, bytes=40.0), dict(nll=1.0, tokens=1.0, bytes=2.0)]
    metrics = evaluate_perplexity(sums_of, 1.0, iter(batches))
    assert metrics["validation/loss"] == pytest.approx(31 / 11)
    assert metrics["validation/perplexity"] == pytest.approx(math.exp(31 / 11))
    assert metrics["validation/bits_per_byte"] == pytest.approx(31 / math.log(2) / 42)
    assert metrics["validation/tokens"] == 11


def test_tokens_without_bytes_have_no_bits_per_byte():
    assert "validation/bits_per_byte" not in evaluate_perplexity(sums_of, 1.0, [dict(nll=1.0, tokens=1.0, bytes=0.0)])


@pytest.mark.parametrize("batches", [[], [dict(nll=0.0, tokens=0.0, bytes=0.0)]])
def test_nothing_to_evaluate_is_an_error(batches):
    with pytest.raises(ConfigError, match="no supervised token"):
        evaluate_perplexity(sums_of, 1.0, batches)


class TwoBatches:
    """As much of a Dataset as is asked."""

    def batches(self, start, rows):
        return iter([{"nll": np.full((len(rows), 1), weight, np.float32)} for weight in (1.0, 3.0)])

    def identity(self):
        return "0123456789ab"


def test_a_score_says_what_was_scored():
    def step(params, batch):
        return {"nll": batch["nll"].sum(), "tokens": jnp.float32(batch["nll"].size), "bytes": jnp.float32(0)}

    scored = score(step, None, TwoBatches(), make_mesh(default().mesh), 8)
    assert scored["validation/set"] == "0123456789ab"
    assert (scored["validation/loss"], scored["validation/tokens"]) == (2.0, 16)
