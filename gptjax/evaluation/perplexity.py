"""Held-out loss, perplexity and bits per byte of a model on a set of windows.

Contiguous and packed windows score the same tokens and the same bytes, whatever their length. They differ only in the
context from which a token is predicted.

- Every token of a document's text is scored, including the first one, which is predicted from the begin token.
- EOS is scored. It has no bytes, so bits per byte include the cost of ending each text.
- If documents begin with BOS, it is given and never scored.
- `<unk>`, which only character tokenizers have, counts as one byte with the loss of `<unk>`, although the character
  cannot be recovered from it. Scores of a text with many such characters are too good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gptjax.config import ConfigError
from gptjax.evaluation.scores import BITS_PER_BYTE, LOSS, PERPLEXITY


def perplexity(nll_per_token: float) -> float:
    """exp of a loss in nats per token; infinite if that overflows."""
    return math.exp(nll_per_token) if nll_per_token < 709 else math.inf


def bits_per_byte(nll_sum: float, num_bytes: float) -> float:
    """The loss in bits per UTF-8 byte of the text, which does not depend on the tokenizer. NaN without bytes."""
    return nll_sum / math.log(2) / num_bytes if num_bytes else math.nan


def scores_of_text(sums: Mapping[str, float]) -> dict[str, float]:
    """The scores of a text from sums over all of its tokens. A single division at the end weights batches by their
    tokens.

    Args:
      sums: nll (nats), tokens, and bytes of UTF-8 that the tokens stand for.

    Returns:
      validation/loss (nats per token), validation/perplexity, validation/bits_per_byte (independent of the tokenizer;
      left out if no token stands for a byte of text), validation/tokens.

    Raises:
      ConfigError: there is no token to score.
    """
    if not sums.get("tokens"):
        raise ConfigError("the validation split has no supervised token: prepare a larger one")
    loss = sums["nll"] / sums["tokens"]
    scores = {LOSS.name: loss, PERPLEXITY.name: perplexity(loss), "validation/tokens": sums["tokens"]}
    if sums["bytes"]:
        scores[BITS_PER_BYTE.name] = bits_per_byte(sums["nll"], sums["bytes"])
    return scores
