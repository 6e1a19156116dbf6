"""Predict the target of a pair after its source: translation or summarization with a decoder alone."""

from __future__ import annotations

from gptjax.training.objectives.next_token import NextToken


class Completion(NextToken):
    """Cross-entropy of a pair's target, in nats per token, given its source (T5's language model with a prefix that is
    causal: arXiv:1910.10683, section 3.2).

    Rows hold source, EOS, target, EOS of several pairs, which do not see each other (data/pairs.py); only the targets
    have a weight. So all scores are of the targets' tokens.
    """

    @property
    def windows(self) -> str:
        return "completions"
