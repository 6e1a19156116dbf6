"""Sums are added before division, so batches of unequal size are weighted by their tokens."""

import math

import pytest

from gptjax.config import ConfigError
from gptjax.evaluation.perplexity import bits_per_byte, perplexity, scores_of_text


def test_perplexity_and_bits_per_byte():
    assert perplexity(math.log(50)) == pytest.approx(50) and perplexity(1e4) == math.inf
    assert bits_per_byte(math.log(256) * 10, 10) == pytest.approx(8.0)  # uniform over bytes
    assert math.isnan(bits_per_byte(0.0, 0))


def test_scores_are_quotients_of_sums():
    scores = scores_of_text(dict(nll=31.0, tokens=11.0, bytes=42.0))
    assert scores["validation/loss"] == pytest.approx(31 / 11)
    assert scores["validation/perplexity"] == pytest.approx(math.exp(31 / 11))
    assert scores["validation/bits_per_byte"] == pytest.approx(31 / math.log(2) / 42)
    assert scores["validation/tokens"] == 11


def test_tokens_without_bytes_have_no_bits_per_byte():
    assert "validation/bits_per_byte" not in scores_of_text(dict(nll=1.0, tokens=1.0, bytes=0.0))


@pytest.mark.parametrize("sums", [{}, dict(nll=0.0, tokens=0.0, bytes=0.0)])
def test_nothing_to_evaluate_is_an_error(sums):
    with pytest.raises(ConfigError, match="no supervised token"):
        scores_of_text(sums)
