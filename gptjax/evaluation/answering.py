"""A trained decoder as an `Answerer`: log-likelihoods in batches of alike lengths, texts by the cached generator.

The tokens of a continuation are those that context and continuation together have after the context's own. White space
at a context's end belongs to the continuation, as tokenizers join a blank to the word that follows. What is longer than
the model's context loses tokens at its beginning. Contexts stand after the token that documents begin after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from gptjax.errors import ConfigError
from gptjax.evaluation.loglikelihood import Continued, LogLikelihoods
from gptjax.evaluation.requests import Generated, LogLikelihood, Scored, Written
from gptjax.inference.generate import Generator
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer

SCORED_FAMILY = "decoder"
GENERATED_AT_ONCE = 8  # batches between two reports


@dataclasses.dataclass(frozen=True)
class _Row:
    """Tokens of a request, of which those from `first` on are the continuation's."""

    tokens: list[int]
    first: int
    size: int  # bytes of the continuation
    truncated: int


class ModelAnswerer:
    """Answers with a model: log-likelihoods on all devices of this process, texts on one.

    Args:
      params: as trained.
      config: the run's config, resolved.
      begin_id: the token that documents start after; None: the tokenizer's EOS.

    Raises:
      ConfigError: the model is of a family whose log-likelihoods are not computed here.
    """

    def __init__(self, params: Any, config: Settings, tokenizer: Tokenizer, begin_id: int | None = None):
        if config.model.family != SCORED_FAMILY:
            raise ConfigError(f"model.family = {config.model.family!r}: tasks evaluate models of family 'decoder'")
        self.context = config.model.max_positions
        self.tokenizer = tokenizer
        self.generator = Generator(params, config, tokenizer, begin_id=begin_id)
        self.scorer = LogLikelihoods(self.generator.family, self.generator.params)

    def score(self, requests: Sequence[Scored]) -> Iterator[tuple[int, LogLikelihood]]:
        """See `Answerer`. What requests share is read once (`loglikelihood`)."""
        rows = list(self._rows(requests))
        for index, score in self.scorer.score([Continued(row.tokens, row.first) for row in rows]):
            row = rows[index]
            tokens = len(row.tokens) - row.first
            yield index, LogLikelihood(score.nats, tokens, row.size, score.hits == tokens, row.truncated)

    def generate(self, requests: Sequence[Generated]) -> Iterator[tuple[int, Written]]:
        """See `Answerer`. Where prompt and answer do not fit together, the answer gets at most half the context."""
        by_limits: dict[tuple[int, tuple[str, ...]], list[tuple[int, list[int], int]]] = {}
        begin = [] if self.generator.begin_id is None else [self.generator.begin_id]
        for index, request in enumerate(requests):
            new = min(request.max_new_tokens, max(self.context // 2, 1))
            tokens = [*begin, *self.tokenizer.encode(request.prompt)]
            cut = max(0, len(tokens) - (self.context - new + 1))
            by_limits.setdefault((new, request.stop), []).append((index, tokens[cut:], cut))
        step = GENERATED_AT_ONCE * self.generator.batch_size
        for (new, stop), prompts in by_limits.items():
            prompts.sort(key=lambda prompt: -len(prompt[1]))
            for first in range(0, len(prompts), step):
                some = prompts[first : first + step]
                texts = self.generator.generate(
                    [tokens for _, tokens, _ in some], max_new_tokens=new, stop=stop, temperature=0.0
                )
                for (index, _, cut), text in zip(some, texts):
                    yield index, Written(text.text, cut, text.finish_reason)

    def _rows(self, requests: Sequence[Scored]) -> Iterator[_Row]:
        contexts = [request.context.rstrip() for request in requests]
        moved = [request.context[len(kept) :] for request, kept in zip(requests, contexts)]
        once = list(dict.fromkeys(contexts))
        lengths = {text: len(ids) for text, ids in zip(once, self.tokenizer.encode_batch(once))}
        whole = [kept + blank + request.continuation for kept, blank, request in zip(contexts, moved, requests)]
        begin = [] if self.generator.begin_id is None else [self.generator.begin_id]
        for index, ids in enumerate(self.tokenizer.encode_batch(whole)):
            tokens = [*begin, *ids.tolist()]
            first = min(max(len(begin) + lengths[contexts[index]], 1), len(tokens) - 1)
            cut = max(0, len(tokens) - self.context - 1)  # the last token is predicted, and not read
            size = len((moved[index] + requests[index].continuation).encode())
            yield _Row(tokens[cut:], max(first - cut, 1), size, cut)
