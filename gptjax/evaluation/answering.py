"""A trained model as an `Answerer`: it computes log-likelihoods in batches, and generates texts with the generator.

Context and continuation are tokenized together; the tokens after those of the context belong to the continuation. White
space at the end of a context belongs to the continuation, because tokenizers join a space to the following word.
Requests that are longer than the model's context lose tokens at their beginning. Contexts start after the begin token.

A model of pairs (an encoder–decoder, or a decoder trained to complete pairs) takes the context or prompt as its source,
and the continuation or text as its target. These are tokenized separately. A source that is too long loses its
beginning, too, since a question stands at its end.

A model of conversations can be asked by its template: then a prompt is the user's message, and the text is the answer.
Log-likelihoods are those of plain texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from gptjax.conversation import Message, Renderer
from gptjax.conversation.messages import USER
from gptjax.evaluation.loglikelihood import Continued, LogLikelihoods, mesh_of
from gptjax.evaluation.requests import Generated, LogLikelihood, Scored, Written
from gptjax.inference.completion import Completion
from gptjax.inference.generate import Generator
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer

GENERATED_AT_ONCE = 8  # batches between two progress reports
# An answer that finds too little room gets a multiple of an eighth of the context, so that many answers have the same
# limit and are written in one batch.
STEPS = 8


@dataclasses.dataclass(frozen=True)
class _Row:
    """The tokens of a request. Those from `first` on are the continuation."""

    tokens: list[int]
    first: int
    size: int  # of the scored part of the continuation, in bytes
    truncated: int


@dataclasses.dataclass(frozen=True)
class _Prompt:
    """A prompt or source as the model reads it.

    Attributes:
      truncated: the number of tokens cut off at the beginning of its text.
      most: the number of tokens that may follow.
    """

    tokens: list[int]
    truncated: int
    most: int


class ModelAnswerer:
    """Answers with a model: log-likelihoods on all devices of this process, texts on one, or on those of a mesh.

    Args:
      params: as trained.
      config: the run's config, resolved.
      begin_id: the token that documents start after; None: the tokenizer's EOS.
      source_tokenizer: the tokenizer of the sources of pairs, if they have their own.
      renderer: writes prompts as messages of a user; None: they are plain text.
      num_beams: the number of beams of a search for texts (`Generator.search`); 0: greedy decoding.
      mesh: the devices over which `params` are split (`devices.decoding_mesh`); None: one device has them.

    Raises:
      ConfigError: the model cannot generate text.
    """

    def __init__(
        self,
        params: Any,
        config: Settings,
        tokenizer: Tokenizer,
        begin_id: int | None = None,
        *,
        source_tokenizer: Tokenizer | None = None,
        renderer: Renderer | None = None,
        num_beams: int = 0,
        mesh: Mesh | None = None,
    ):
        self.context = config.model.max_positions
        self.tokenizer, self.num_beams, self.renderer = tokenizer, num_beams, renderer
        objective = config.training.objective
        self.generator = Generator(
            params,
            config,
            tokenizer,
            source_tokenizer=source_tokenizer,
            begin_id=begin_id,
            end_id=None if renderer is None else renderer.end_id,
            objective=objective,
            mesh=mesh,
        )
        self.reads_pairs = not self.generator.family.continues or bool(self.generator.after_source)
        readers = mesh_of(jax.local_devices(), 1 if mesh is None else mesh.size)
        self.scorer = LogLikelihoods(self.generator.family, self.generator.params, readers)

    def score(self, requests: Sequence[Scored]) -> Iterator[tuple[int, LogLikelihood]]:
        """See `Answerer`. A context that several requests share is read once (`loglikelihood`), and so are equal
        requests, whose answers are then exactly equal."""
        asked: dict[Scored, list[int]] = {}
        for index, request in enumerate(requests):
            asked.setdefault(request, []).append(index)
        rows, owners = list(self._rows(list(asked))), list(asked.values())
        for number, score in self.scorer.score([Continued(row.tokens, row.first) for row in rows]):
            row = rows[number]
            tokens = len(row.tokens) - row.first
            answer = LogLikelihood(score.nats, tokens, row.size, score.hits == tokens, row.truncated)
            for index in owners[number]:
                yield index, answer

    def generate(self, requests: Sequence[Generated]) -> Iterator[tuple[int, Written]]:
        """See `Answerer`. If prompt and answer do not fit together, the answer gets the room that the prompt leaves,
        and at least half the context. Prompts of similar lengths are answered together."""
        read = self._source if self.reads_pairs else self._prompt
        by_limits: dict[tuple[int, tuple[str, ...]], list[tuple[int, _Prompt]]] = {}
        for index, request in enumerate(requests):
            prompt = read(request.prompt, request.max_new_tokens, max(1, self.context // STEPS))
            by_limits.setdefault((prompt.most, request.stop), []).append((index, prompt))
        at_once = GENERATED_AT_ONCE * self.generator.batch_size
        for (most, stop), prompts in by_limits.items():
            prompts.sort(key=lambda each: -len(each[1].tokens))
            for first in range(0, len(prompts), at_once):
                some = prompts[first : first + at_once]
                texts = self._write([prompt.tokens for _, prompt in some], most, stop)
                for (index, prompt), text in zip(some, texts):
                    yield index, Written(text.text, prompt.truncated, text.finish_reason)

    def _prompt(self, text: str, wanted: int, step: int) -> _Prompt:
        """A prompt that may be followed by `wanted` tokens (see `_room`)."""
        begin = [] if self.generator.begin_id is None else [self.generator.begin_id]
        ids = self.tokenizer.encode(text)
        around = len(begin) + (0 if self.renderer is None else len(self.renderer.prompt([Message(USER, "")])))
        most = self._room(around + len(ids), wanted, step)
        cut = max(0, around + len(ids) - (self.context + 1 - most))
        if self.renderer is None:
            return _Prompt([*begin, *ids][cut:], cut, most)
        cut = min(cut, max(0, len(ids) - 1))
        message = Message(USER, self.tokenizer.decode(ids[cut:]) if cut else text)
        return _Prompt([*begin, *self.renderer.prompt([message]).tolist()], cut, most)

    def _room(self, length: int, wanted: int, step: int) -> int:
        """How many of the `wanted` tokens may follow a prompt of this length in the same context: those that fit, in
        multiples of `step` if not all do, but at least half the context, for which a longer prompt loses tokens. The
        last token is not read."""
        left = self.context + 1 - length
        return wanted if wanted <= left else min(wanted, max(left // step * step, self.context // 2, 1))

    def _write(self, prompts: list[list[int]], max_new_tokens: int, stop: tuple[str, ...]) -> list[Completion]:
        if not self.num_beams:
            return self.generator.generate(prompts, max_new_tokens=max_new_tokens, stop=stop, temperature=0.0)
        found = self.generator.search(prompts, num_beams=self.num_beams, max_new_tokens=max_new_tokens)
        return [dataclasses.replace(each, text=before_first(each.text, stop)) for each in found]

    def _source(self, text: str, wanted: int, step: int = 1) -> _Prompt:
        """A source as the generator takes it, for a target of `wanted` tokens. Only in a decoder do they share the
        context (see `_room`)."""
        generator = self.generator
        tokens = [int(token) for token in generator.source_tokenizer.encode(text)]
        if not generator.family.continues:
            cut = max(0, len(tokens) - (generator.config[generator.family.prompt_field] - 1))  # its EOS
            return _Prompt(tokens[cut:], cut, min(wanted, self.context))
        begin = [] if generator.begin_id is None else [generator.begin_id]
        around = len(begin) + len(generator.after_source)
        most = self._room(around + len(tokens), wanted, step)
        cut = min(max(0, around + len(tokens) - (self.context + 1 - most)), max(0, len(tokens) - 1))
        return _Prompt([*begin, *tokens[cut:], *generator.after_source], cut, most)

    def _rows(self, requests: Sequence[Scored]) -> Iterator[_Row]:
        return self._rows_of_pairs(requests) if self.reads_pairs else self._rows_of_texts(requests)

    def _rows_of_pairs(self, requests: Sequence[Scored]) -> Iterator[_Row]:
        family, begin_id, eos_id = (
            self.generator.family,
            self.generator.begin_id,
            self.generator.source_tokenizer.eos_id,
        )
        for request in requests:
            text = request.continuation.lstrip()
            target = [int(token) for token in self.tokenizer.encode(text)] or [0]
            source = self._source(request.context, len(target))
            given = source.tokens if family.continues else family.framed(source.tokens, begin_id, eos_id)
            kept = target[: source.most]
            size = len((text if kept == target else self.tokenizer.decode(kept)).encode())
            yield _Row([*given, *kept], len(given), size, source.truncated + len(target) - len(kept))

    def _rows_of_texts(self, requests: Sequence[Scored]) -> Iterator[_Row]:
        contexts = [request.context.rstrip() for request in requests]
        moved = [request.context[len(kept) :] for request, kept in zip(requests, contexts)]
        once = list(dict.fromkeys(contexts))
        lengths = {text: len(ids) for text, ids in zip(once, self.tokenizer.encode_batch(once))}
        whole = [kept + blank + request.continuation for kept, blank, request in zip(contexts, moved, requests)]
        begin = [] if self.generator.begin_id is None else [self.generator.begin_id]
        for index, ids in enumerate(self.tokenizer.encode_batch(whole)):
            tokens = [*begin, *ids.tolist()]
            first = min(max(len(begin) + lengths[contexts[index]], 1), len(tokens) - 1)
            cut = max(0, len(tokens) - self.context - 1)  # the last token is only predicted, not read
            scored = moved[index] + requests[index].continuation
            if first <= cut:  # the continuation alone is longer than the context
                scored = self.tokenizer.decode(tokens[cut + 1 :])
            size = len(scored.encode())
            yield _Row(tokens[cut:], max(first - cut, 1), size, cut)


def before_first(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop strings in it."""
    found = [place for place in (text.find(each) for each in stop) if place >= 0]
    return text[: min(found)] if found else text
