"""A trained model as an `Answerer`: it computes log-likelihoods in batches, and generates texts with the generator.

Context and continuation are tokenized together; the tokens after those of the context belong to the continuation. White
space at the end of a context belongs to the continuation, because tokenizers join a space to the following word.
Requests that are longer than the model's context lose tokens at their beginning. Contexts start after the begin token.

A model of pairs (an encoder–decoder, or a decoder trained to complete pairs) takes the context or prompt as its source,
and the continuation or text as its target. These are tokenized separately, and a source that is too long loses its end.

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


@dataclasses.dataclass(frozen=True)
class _Row:
    """The tokens of a request. Those from `first` on are the continuation."""

    tokens: list[int]
    first: int
    size: int  # size of the continuation in bytes
    truncated: int


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
        """See `Answerer`. A context that several requests share is read once (`loglikelihood`)."""
        rows = list(self._rows(requests))
        for index, score in self.scorer.score([Continued(row.tokens, row.first) for row in rows]):
            row = rows[index]
            tokens = len(row.tokens) - row.first
            yield index, LogLikelihood(score.nats, tokens, row.size, score.hits == tokens, row.truncated)

    def generate(self, requests: Sequence[Generated]) -> Iterator[tuple[int, Written]]:
        """See `Answerer`. If prompt and answer do not fit together, the answer gets at most half the context."""
        if self.reads_pairs:
            yield from self._targets(requests)
            return
        by_limits: dict[tuple[int, tuple[str, ...]], list[tuple[int, list[int], int]]] = {}
        for index, request in enumerate(requests):
            new = min(request.max_new_tokens, max(self.context // 2, 1))
            tokens, cut = self._prompt(request.prompt, self.context - new + 1)
            by_limits.setdefault((new, request.stop), []).append((index, tokens, cut))
        step = GENERATED_AT_ONCE * self.generator.batch_size
        for (new, stop), prompts in by_limits.items():
            prompts.sort(key=lambda prompt: -len(prompt[1]))
            for first in range(0, len(prompts), step):
                some = prompts[first : first + step]
                texts = self._write([tokens for _, tokens, _ in some], new, stop)
                for (index, _, cut), text in zip(some, texts):
                    yield index, Written(text.text, cut, text.finish_reason)

    def _prompt(self, text: str, room: int) -> tuple[list[int], int]:
        """A prompt's tokens, at most `room`, and the number of tokens cut off at the beginning of its text."""
        begin = [] if self.generator.begin_id is None else [self.generator.begin_id]
        ids = self.tokenizer.encode(text)
        if self.renderer is None:
            tokens = [*begin, *ids]
            cut = max(0, len(tokens) - room)
            return tokens[cut:], cut
        around = len(begin) + len(self.renderer.prompt([Message(USER, "")]))
        cut = max(0, len(ids) - max(room - around, 1))
        message = Message(USER, self.tokenizer.decode(ids[cut:]) if cut else text)
        return [*begin, *self.renderer.prompt([message]).tolist()], cut

    def _write(self, prompts: list[list[int]], max_new_tokens: int, stop: tuple[str, ...]) -> list[Completion]:
        if not self.num_beams:
            return self.generator.generate(prompts, max_new_tokens=max_new_tokens, stop=stop, temperature=0.0)
        found = self.generator.search(prompts, num_beams=self.num_beams, max_new_tokens=max_new_tokens)
        return [dataclasses.replace(each, text=before_first(each.text, stop)) for each in found]

    def _source(self, text: str, room: int) -> tuple[list[int], int]:
        """A source's tokens as the generator takes them, and the number of tokens cut off to leave `room` for a
        target."""
        generator = self.generator
        tokens = [int(token) for token in generator.source_tokenizer.encode(text)]
        if generator.family.continues:
            begin = [] if generator.begin_id is None else [generator.begin_id]
            most = max(1, self.context - room - len(begin) - len(generator.after_source))
            return [*begin, *tokens[:most], *generator.after_source], max(0, len(tokens) - most)
        most = generator.config[generator.family.prompt_field] - 1  # its EOS
        return tokens[:most], max(0, len(tokens) - most)

    def _targets(self, requests: Sequence[Generated]) -> Iterator[tuple[int, Written]]:
        """Texts for sources, in batches of similar lengths."""
        by_limits: dict[tuple[int, tuple[str, ...]], list[tuple[int, list[int], int]]] = {}
        for index, request in enumerate(requests):
            new = min(request.max_new_tokens, max(self.context // 2, 1))
            by_limits.setdefault((new, request.stop), []).append((index, *self._source(request.prompt, new)))
        step = GENERATED_AT_ONCE * self.generator.batch_size
        for (new, stop), sources in by_limits.items():
            sources.sort(key=lambda source: -len(source[1]))
            for first in range(0, len(sources), step):
                some = sources[first : first + step]
                for (index, _, cut), text in zip(some, self._write([tokens for _, tokens, _ in some], new, stop)):
                    yield index, Written(text.text, cut, text.finish_reason)

    def _rows(self, requests: Sequence[Scored]) -> Iterator[_Row]:
        return self._rows_of_pairs(requests) if self.reads_pairs else self._rows_of_texts(requests)

    def _rows_of_pairs(self, requests: Sequence[Scored]) -> Iterator[_Row]:
        family, begin_id, eos_id = (
            self.generator.family,
            self.generator.begin_id,
            self.generator.source_tokenizer.eos_id,
        )
        for request in requests:
            target = [int(token) for token in self.tokenizer.encode(request.continuation.lstrip())]
            target = target[: max(1, self.context // 2)] or [0]
            source, cut = self._source(request.context, len(target))
            given = source if family.continues else family.framed(source, begin_id, eos_id)
            yield _Row([*given, *target], len(given), len(request.continuation.lstrip().encode()), cut)

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
            size = len((moved[index] + requests[index].continuation).encode())
            yield _Row(tokens[cut:], max(first - cut, 1), size, cut)


def before_first(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop strings in it."""
    found = [place for place in (text.find(each) for each in stop) if place >= 0]
    return text[: min(found)] if found else text
