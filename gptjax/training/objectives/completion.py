"""Predict the target of a pair after its source: translation or summarization with only a decoder."""

from __future__ import annotations

from gptjax.training.objectives.next_token import NextToken


class Completion(NextToken):
    """Cross-entropy of a pair's target, in nats per token, given its source (like T5's prefix language model, but
    causal in the prefix: arXiv:1910.10683, section 3.2).

    Rows hold source, EOS, target, EOS of several pairs, which do not see each other (data/pairs.py). Only targets have
    a weight, so all scores are over the targets' tokens.
    """

    @property
    def windows(self) -> str:
        return "completions"
