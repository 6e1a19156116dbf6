"""A trained decoder as an `Answerer`: log-likelihoods in batches of alike lengths, texts by the cached generator.

The tokens of a continuation are those that context and continuation together have after the context's own. White space
at a context's end belongs to the continuation, as tokenizers join a blank to the word that follows. What is longer than
the model's context loses tokens at its beginning. Contexts stand after the token that documents begin after.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.errors import ConfigError
from gptjax.evaluation.requests import Generated, LogLikelihood, Scored, Written
from gptjax.inference.generate import Generator
from gptjax.model.families import family_named, family_of
from gptjax.model.family import Family
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer

LOGITS = 1 << 26  # float32 numbers that a batch's logits may be
MOST_ROWS = 64
SHORTEST = 32  # tokens of the shortest shape
SCORED_FAMILY = "decoder"
GENERATED_AT_ONCE = 8  # batches between two reports


@dataclasses.dataclass(frozen=True)
class _Row:
    """Tokens of a request, of which those from `first` on are the continuation's."""

    index: int
    tokens: list[int]
    first: int
    size: int  # bytes of the continuation
    truncated: int


class ModelAnswerer:
    """Answers with a model on one device.

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
        model = dataclasses.replace(config.model, attention="auto", layers="auto")  # it may have trained elsewhere
        model = family_named(model.family).resolve(
            model,
            platform=jax.default_backend(),
            vocab_size=config.model.vocab_size,
            sequence_length=config.model.max_positions,
        )
        self.family = family_of(model)
        self.context = model.max_positions
        self.tokenizer = tokenizer
        self.generator = Generator(params, config, tokenizer, begin_id=begin_id)
        self.params = jax.tree.map(jnp.asarray, params)

    def score(self, requests: Sequence[Scored]) -> Iterator[tuple[int, LogLikelihood]]:
        """See `Answerer`. The longest come first, so that memory that does not suffice is missed at once."""
        rows = sorted(self._rows(requests), key=lambda row: -len(row.tokens))
        first = 0
        while first < len(rows):
            length = self._shape(len(rows[first].tokens))
            batch = rows[first : first + max(1, min(MOST_ROWS, LOGITS // (length * self.family.config.vocab_size)))]
            yield from self._scored(batch, length)
            first += len(batch)

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
            yield _Row(index, tokens[cut:], max(first - cut, 1), size, cut)

    def _shape(self, length: int) -> int:
        """Tokens that are read in a batch whose longest row has so many: a power of two, or one and a half of it."""
        shape = SHORTEST
        while shape < length - 1:
            shape = shape * 3 // 2 if shape & (shape - 1) == 0 else shape * 4 // 3
        return min(shape, self.context)

    def _scored(self, rows: Sequence[_Row], length: int) -> Iterator[tuple[int, LogLikelihood]]:
        batch = 1 << (len(rows) - 1).bit_length()
        inputs_BT, targets_BT = np.zeros((2, batch, length), np.int32)
        first_B, end_B = np.zeros((2, batch), np.int32)
        for place, row in enumerate(rows):
            inputs_BT[place, : len(row.tokens) - 1] = row.tokens[:-1]
            targets_BT[place, : len(row.tokens) - 1] = row.tokens[1:]
            first_B[place], end_B[place] = row.first - 1, len(row.tokens) - 1
        nats_B, greedy_B = map(np.asarray, _score(self.family, self.params, inputs_BT, targets_BT, first_B, end_B))
        for row, nats, greedy in zip(rows, nats_B.tolist(), greedy_B.tolist()):
            yield row.index, LogLikelihood(nats, len(row.tokens) - row.first, row.size, greedy, row.truncated)


@functools.partial(jax.jit, static_argnums=0)
def _score(
    family: Family, params: Any, inputs_BT: Any, targets_BT: Any, first_B: Any, end_B: Any
) -> tuple[jax.Array, jax.Array]:
    """Of each row the log-likelihood of the targets from first to before end, and whether all are the likeliest."""
    module = family.module()

    def logits_of(model: Any, tokens_BT: Any) -> jax.Array:
        return model.logits(model.hidden(tokens_BT)[0])

    logits_BTV: Any = module.apply({"params": params}, inputs_BT, method=logits_of)
    at_targets_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    place_T = jnp.arange(inputs_BT.shape[1])
    counted_BT = (place_T >= first_B[:, None]) & (place_T < end_B[:, None])
    nats_BT = at_targets_BT - jax.nn.logsumexp(logits_BTV, axis=-1)
    greedy_BT = jnp.argmax(logits_BTV, axis=-1) == targets_BT
    return jnp.where(counted_BT, nats_BT, 0.0).sum(axis=1), (greedy_BT | ~counted_BT).all(axis=1)
