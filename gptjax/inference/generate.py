"""Generates completions of prompts with a trained model, all at once or piece by piece.

    generator = Generator(params, config, tokenizer)
    for completion in generator.generate(["def main(", "class "], max_new_tokens=64, temperature=0.8):
        print(completion.text)

This file has the host's part of generation: it makes batches of bucketed shapes from prompts, turns tokens into text,
and ends rows at stop strings. The device's part is one program, `decode.generate`. For streams and stop strings, it is
`decode.prefill` followed by calls of `decode.decode`, one per piece of the text. A generator has no mutable state: the
text of a call so far is in its rows and its `DecodeState`, and the time is in the `Timing` that the caller passes.

A row ends with its EOS token, with a stop string, after `max_new_tokens`, or at the end of the context: the model reads
at most `model.max_positions` tokens, prompt and text together, and can generate one more.
"""

from __future__ import annotations

import contextlib
import math
import reprlib
from collections import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from gptjax.config import ConfigError, RunError
from gptjax.display.formatting import counted
from gptjax.inference import shapes
from gptjax.inference.beam import beam_search
from gptjax.inference.decode import WEIGHTS, DecodeState, Written, decode, decoding_params, generate, prefill
from gptjax.inference.sampling import make_sampling
from gptjax.inference.text import TextStream, check_text, stop_strings, unknown_characters
from gptjax.inference.timing import Timing, is_new, program_key, timed
from gptjax.model.families import merged_model, reading_family_of
from gptjax.parallel.distributed import fetch
from gptjax.parallel.placement import MeshPlacement
from gptjax.settings import MeshSettings, Settings
from gptjax.tokenizer import Tokenizer

# Objectives whose prompts are sources of pairs, for a decoder.
COMPLETING = ("completion", "preference", "grpo", "on_policy_distillation")
STOP_CHUNK = 16  # tokens between two searches for a stop string
FINISH_REASONS = {  # the limit that a text reached first
    "eos": "the end-of-text token",
    "stop": "a stop string",
    "max_new_tokens": "max_new_tokens",
    "context": "the end of the context",
}


@dataclass(frozen=True)
class Completion:
    """One continuation of one prompt."""

    prompt: str
    text: str  # without the prompt, cut before a stop string; a cut-off last character is U+FFFD
    tokens: list[int]  # all tokens drawn for the text, including EOS or the stop string
    # Log-probabilities of the tokens under the model's own distribution, before temperature and truncation.
    logprobs: list[float]
    finish_reason: str  # one of FINISH_REASONS
    seed: int
    unknown_characters: str = ""  # characters of the prompt for which the tokenizer only has <unk>
    score: float | None = None  # beam search: the score by which texts are compared (inference/beam.py)


class FramedPrompt(NamedTuple):
    """A prompt as the model reads it."""

    text: str
    tokens: list[int]  # with the begin token, or those between a source and its target
    begins_text: bool  # whether the text that follows is the beginning of a document


@dataclass
class _Row:
    """A completion in progress."""

    prompt: str
    prompt_tokens: list[int]
    seed: int
    limit: int  # new tokens
    limited_by: str  # 'max_new_tokens' or 'context'
    eos_id: int | None
    text: TextStream
    unknown_characters: str
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    score: float | None = None

    def add(self, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Adds the row's next tokens until one of them ends it.

        Raises:
          RunError: a token was drawn from logits that are not all finite.
        """
        for token, logprob in zip(tokens.tolist(), logprobs.tolist()):
            if self.finish_reason is not None:
                return
            if math.isnan(logprob):
                which = f"prompt = {reprlib.repr(self.prompt)}: the model's logits for new token {len(self.tokens) + 1}"
                raise RunError(
                    f"{which} are not finite, so no token can be drawn: the parameters hold NaN, or activations "
                    "overflow (an earlier checkpoint or --weights=float32 may help)"
                )
            self.tokens.append(token)
            self.logprobs.append(logprob)
            if token == self.eos_id:
                self.finish_reason = "eos"
            elif self.text.push(token):
                self.finish_reason = "stop"
            elif len(self.tokens) == self.limit:
                self.finish_reason = self.limited_by
            if self.finish_reason is not None:
                self.text.close()

    def completion(self) -> Completion:
        assert self.finish_reason is not None  # it is done
        return Completion(
            self.prompt,
            self.text.text,
            self.tokens,
            self.logprobs,
            self.finish_reason,
            self.seed,
            self.unknown_characters,
            self.score,
        )


class Generator:
    """Generates text with a model. Calls do not change it, so they may be interleaved.

    Args:
      params: trained parameters (stacked layers, float32, or with adapters); a copy for decoding is made.
      config: the run's resolved config.
      tokenizer: the run's tokenizer.
      source_tokenizer: the tokenizer of prompts, if the sources of pairs have their own.
      end_id: the token that ends a text; None: the tokenizer's EOS.
      begin_id: the token that every document started after in training (`Dataset.begin_id`, kept in the run's
        checkpoints); None: the tokenizer's EOS.
      objective: the run's objective; for 'completion', a prompt is a source, and the text is its target.
      batch_size: the number of rows that are generated together; further rows follow in more batches.
      mesh: the devices over which `params` are split (`devices.decoding_mesh`); None: they are on one device.
      weights: the type of that copy's matrices, one of `decode.WEIGHTS`; None: the type of the activations. A narrower
        type saves memory; activations are rounded to it only where they are multiplied.
    """

    def __init__(
        self,
        params: Any,
        config: Settings,
        tokenizer: Tokenizer,
        *,
        source_tokenizer: Tokenizer | None = None,
        begin_id: int | None = None,
        end_id: int | None = None,
        objective: str = "next_token",
        batch_size: int = 32,
        weights: str | None = None,
        mesh: Mesh | None = None,
    ):
        if tokenizer.vocab_size > config.model.vocab_size:
            raise ConfigError(
                f"tokenizer = {tokenizer.vocab_size} tokens: must be at most model.vocab_size = "
                f"{config.model.vocab_size}; it is not the tokenizer that the model was trained with"
            )
        params, self.config = merged_model(config.model, params)
        self.tokenizer, self.source_tokenizer = tokenizer, source_tokenizer or tokenizer
        self.begin_id = tokenizer.eos_id if begin_id is None else begin_id
        self.end_id = tokenizer.eos_id if end_id is None else end_id
        # The tokens between source and target of a pair, if a decoder was trained to complete pairs.
        self.after_source: list[int] = []
        if objective in COMPLETING:
            between = dict.fromkeys((tokenizer.eos_id, self.begin_id))  # both may be the same token
            self.after_source = [token for token in between if token is not None]
        self.batch_size = batch_size
        self.weights = weights or self.config.dtype
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights = {weights!r}: expected one of {', '.join(WEIGHTS)}")
        self.family, self.mesh = reading_family_of(self.config), mesh
        if mesh is not None:
            self.family = replace(self.family, placement=MeshPlacement(MeshSettings()))
        if not self.family.writes:
            raise ConfigError(f"model.family = {self.config.family!r}: such a model reads text and cannot write it")
        # The separator of a prompt and its text: none, or a newline between a source and its target.
        self.separator = "" if self.family.continues and not self.after_source else "\n"
        with self._devices():
            self.params = decoding_params(self.family, params, self.weights)
        self._params_key = program_key(self.params)

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int = 128,
        stop: str | Sequence[str] = (),
        seeds: int | Sequence[int] = 0,
        begin: bool = True,
        timing: Timing | None = None,
        **sampling: Any,
    ) -> list[Completion]:
        """Continues every prompt `num_samples` times: all samples of the first prompt, then of the second, …

        Args:
          prompts: texts, or lists of token ids, which are used unchanged unless they are empty.
          stop: the text ends before the first of these strings.
          seeds: an integer s gives the samples of each prompt the seeds s, s + 1, …; a sequence has one seed per
            completion. A completion depends only on its prompt and seed, up to rounding.
          begin: True: a text is the beginning of a document, and follows the begin token, as in training. False: it is
            from inside a document.
          timing: the time of this call is added to it.
          sampling: temperature, top_k, top_p, min_p, repetition_penalty (see `sampling.make_sampling`).

        Raises:
          ConfigError: a prompt is longer than the context, or a value is out of its range.
          RunError: the model's logits are not finite.
        """
        if isinstance(seeds, int | np.integer):
            seeds = [int(seeds) + j for _ in prompts for j in range(num_samples)]
        if len(seeds) != len(prompts) * num_samples:
            raise ConfigError(
                f"seeds = {len(seeds)} numbers: must be one for each of {len(prompts)} prompts × {num_samples} samples"
            )
        stop = stop_strings(stop)
        repeated = [prompt for prompt in prompts for _ in range(num_samples)]
        rows = [self._row(prompt, seed, max_new_tokens, stop, begin) for prompt, seed in zip(repeated, seeds)]
        timing = Timing() if timing is None else timing
        by_length = sorted(rows, key=lambda row: len(row.prompt_tokens))  # less padding
        for first in range(0, len(rows), self.batch_size):
            batch = by_length[first : first + self.batch_size]
            if stop:
                for _ in self._write_in_pieces(batch, STOP_CHUNK, sampling, timing):
                    pass
            else:
                self._write(batch, sampling, timing)
        return [row.completion() for row in rows]

    def search(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        num_beams: int = 4,
        num_samples: int = 1,
        length_penalty: float = 0.6,
        max_new_tokens: int = 128,
        begin: bool = True,
        timing: Timing | None = None,
    ) -> list[Completion]:
        """Returns the best `num_samples` continuations that a beam search finds for every prompt, best first.

        There are fewer if the search finds fewer. Nothing is random. See `beam` for the search, and `generate` for the
        other arguments.

        Args:
          num_beams: the number of beginnings of a text that are kept at each step; 1: greedy.
          length_penalty: the exponent in the divisor of a text's log-probability, which grows with its length (see
            `beam`): a positive number favours longer texts, and 0 ranks texts by probability alone.

        Raises:
          ConfigError, RunError: as for `generate`.
        """
        most = self.tokenizer.vocab_size
        if not 1 <= num_beams <= most:
            raise ConfigError(f"num_beams = {num_beams}: must be from 1 to {most}, the size of the vocabulary")
        if not 1 <= num_samples <= num_beams:
            raise ConfigError(f"num_samples = {num_samples}: must be from 1 to num_beams = {num_beams}")
        if not math.isfinite(length_penalty):
            raise ConfigError(f"length_penalty = {length_penalty}: must be finite")
        timing = Timing() if timing is None else timing
        texts_of = [[self._row(prompt, 0, max_new_tokens, (), begin) for _ in range(num_samples)] for prompt in prompts]
        by_length = sorted(texts_of, key=lambda texts: len(texts[0].prompt_tokens))  # less padding
        at_once = max(1, self.batch_size // num_beams)
        for first in range(0, len(by_length), at_once):
            batch = by_length[first : first + at_once]
            found = self._search([texts[0] for texts in batch], num_beams, length_penalty, timing)
            for place, texts in enumerate(batch):
                for rank, row in enumerate(texts):
                    length, row.score = int(found.length_BW[place, rank]), float(found.score_BW[place, rank])
                    row.add(found.tokens_BWG[place, rank, :length], found.logprobs_BWG[place, rank, :length])
                timing.new_tokens += len(texts[0].tokens)
        return [row.completion() for texts in texts_of for row in texts if row.tokens]  # no tokens, no text

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 128,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        begin: bool = True,
        chunk: int = 8,
        timing: Timing | None = None,
        **sampling: Any,
    ) -> abc.Generator[str, None, Completion]:
        """Yields the text that `generate` would return, in pieces, `chunk` tokens at a time; returns the Completion.

        A piece has whole characters and no part of a stop string. Take the Completion with `yield from`.
        """
        row = self._row(prompt, seed, max_new_tokens, stop_strings(stop), begin)
        for _ in self._write_in_pieces([row], chunk, sampling, Timing() if timing is None else timing):
            if piece := row.text.take():
                yield piece
        return row.completion()

    def framed(self, prompt: str | Sequence[int], begin: bool = True) -> FramedPrompt:
        """What the model reads for a prompt; see `generate` for the arguments.

        Raises:
          ConfigError: the prompt is not text, has other ids than the model's, is empty or longer than the context.
        """
        continues = self.family.continues
        vocab_size = self.config.vocab_size if continues else self.config.source_vocab_size
        is_text = isinstance(prompt, str)
        if isinstance(prompt, str):
            check_text("prompt", prompt)
            text, tokens = prompt, self.source_tokenizer.encode(prompt)
        else:
            text, tokens = "", [int(token) for token in prompt]
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
            extremes = f"{min(tokens)} to {max(tokens)}"
            raise ConfigError(f"prompt = token ids from {extremes}: must be from 0 to {vocab_size - 1}")
        if not is_text:  # padding of the vocabulary stands for no text
            text = self.source_tokenizer.decode([id for id in tokens if id < self.source_tokenizer.vocab_size])
        own_tokens = len(tokens)
        begin = begin and (is_text or not tokens or not continues)
        if is_text:
            tokens += self.after_source
        tokens = self.family.framed(tokens, self.begin_id if begin else None, self.source_tokenizer.eos_id)
        if not tokens:
            raise ConfigError("prompt = '': must not be empty without a begin token before it")
        field = self.family.prompt_field
        length, most = len(tokens) - (not continues), self.config[field]
        if length > most:
            added = (" with the begin token" if continues else " with its EOS") * (length > own_tokens)
            raise ConfigError(f"prompt = {counted(length, 'token')}{added}: must be at most model.{field} = {most}")
        return FramedPrompt(
            text, tokens, begins_text=begin and (own_tokens == 0 or not continues or bool(self.after_source))
        )

    def _row(self, prompt: Any, seed: int, max_new_tokens: int, stop: tuple[str, ...], begin: bool) -> _Row:
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {max_new_tokens}: must be at least 1")
        framed = self.framed(prompt, begin)
        room = self.family.room(len(framed.tokens))
        return _Row(
            prompt=framed.text,
            prompt_tokens=framed.tokens,
            seed=seed,
            limit=min(max_new_tokens, room),
            limited_by="max_new_tokens" if max_new_tokens <= room else "context",
            eos_id=self.end_id,
            text=TextStream(self.tokenizer, stop, begins=framed.begins_text),
            unknown_characters=unknown_characters(self.source_tokenizer, prompt) if isinstance(prompt, str) else "",
        )

    def _write(self, rows: list[_Row], sampling: dict, timing: Timing) -> None:
        """Completes the rows together, in one program."""
        inputs, compiled_in = self._inputs(rows, sampling, timing)
        rooms = tuple(shapes.rooms(compiled_in["num_new"]))

        def run(**changed: Any) -> Any:
            with self._devices():
                return generate(self.family, self.params, **(inputs | changed), rooms=rooms, **compiled_in)

        if is_new("generate", self.family, self._params_key, program_key(inputs), rooms, *compiled_in.values()):
            idle = dict(limit_B=np.zeros_like(inputs["limit_B"]))  # compiles, and generates one token per row
            timing.compile_seconds += timed(lambda: run(**idle))[1]
        written, seconds = timed(run)
        timing.add(seconds, prefill_seconds=None)
        self._collect(rows, written, timing)

    def _search(self, rows: list[_Row], num_beams: int, length_penalty: float, timing: Timing) -> Any:
        """Searches for the rows together, in one program; returns `beam.Texts` of NumPy arrays."""
        inputs, compiled_in = self._inputs(rows, {}, timing)
        del inputs["sampling"]
        inputs["penalty"] = np.float32(length_penalty)
        compiled_in |= dict(num_beams=num_beams, num_tokens=self.tokenizer.vocab_size)
        compiled_in |= dict(rooms=tuple(shapes.rooms(compiled_in["num_new"])))

        def run(**changed: Any) -> Any:
            with self._devices():
                return beam_search(self.family, self.params, **(inputs | changed), **compiled_in)

        if is_new("beam_search", self.family, self._params_key, program_key(inputs), *compiled_in.values()):
            idle = dict(limit_B=np.zeros_like(inputs["limit_B"]))  # compiles, and takes one step
            timing.compile_seconds += timed(lambda: run(**idle))[1]
        texts, seconds = timed(run)
        timing.add(seconds, prefill_seconds=None)
        return fetch(texts)

    def _write_in_pieces(self, rows: list[_Row], chunk: int, sampling: dict, timing: Timing) -> Iterator[None]:
        """Completes the rows together; yields after every `chunk` or fewer new tokens."""
        inputs, compiled_in = self._inputs(rows, sampling, timing)
        padding = [True] * (len(inputs["limit_B"]) - len(rows))
        longest = max(row.limit for row in rows)
        rooms = shapes.rooms(compiled_in["num_new"])
        state = self._prefill(inputs, timing, room=rooms[0], **compiled_in)
        slots = state.cache.num_slots - rooms[0]  # tokens of the prompts
        drawn = self._collect(rows, state.written, timing)
        yield
        while any(row.finish_reason is None for row in rows):
            room = next(room for room in rooms if room > drawn)
            missing = slots + room - state.cache.num_slots
            if missing:
                state = replace(state, cache=state.cache.grown(missing))
            stop_B = np.array([row.finish_reason is not None for row in rows] + padding)
            state = self._decode(state, min(chunk, room - drawn, longest - drawn), stop_B, timing)
            drawn = self._collect(rows, state.written, timing)
            yield

    def _inputs(self, rows: list[_Row], sampling: dict, timing: Timing) -> tuple[dict, dict]:
        """The arguments of `prefill` and `generate` for these rows, and the static values of both programs."""
        # To have few batch shapes, filled with rows that are done from the start.
        batch = 1 << (len(rows) - 1).bit_length()
        most_tokens = self.config[self.family.prompt_field] + (not self.family.continues)
        T = shapes.prompt_slots(max(len(row.prompt_tokens) for row in rows), most_tokens)
        prompt_BT, prompt_length_B = np.zeros((batch, T), np.int32), np.ones(batch, np.int32)
        limit_B = np.zeros(batch, np.int32)
        for index, row in enumerate(rows):
            prompt_length_B[index], limit_B[index] = len(row.prompt_tokens), row.limit
            prompt_BT[index, : len(row.prompt_tokens)] = row.prompt_tokens
        seeds = [row.seed for row in rows] + [0] * (batch - len(rows))
        timing.completions += len(rows)
        timing.prompt_tokens += sum(len(row.prompt_tokens) for row in rows)
        inputs = dict(
            prompt_BT=prompt_BT,
            prompt_length_B=prompt_length_B,
            limit_B=limit_B,
            sampling=make_sampling(seeds, num_tokens=self.tokenizer.vocab_size, **sampling),
            eos_id=np.int32(-1 if self.end_id is None else self.end_id),
        )
        return inputs, dict(num_new=shapes.bucketed(max(row.limit for row in rows)), piece=shapes.PIECE)

    def _devices(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def _collect(self, rows: list[_Row], written: Written, timing: Timing) -> int:
        """Adds the new tokens to the rows; returns the number of tokens of the unfinished rows."""
        tokens_BG, logprobs_BG, length_B = fetch(tuple(written))
        for row, tokens, logprobs, length in zip(rows, tokens_BG, logprobs_BG, length_B):
            before = len(row.tokens)
            row.add(tokens[before:length], logprobs[before:length])
            timing.new_tokens += len(row.tokens) - before
        return max((len(row.tokens) for row in rows if row.finish_reason is None), default=0)

    def _prefill(self, inputs: dict, timing: Timing, **compiled_in: Any) -> DecodeState:
        def run() -> Any:
            with self._devices():
                return prefill(self.family, self.params, **inputs, **compiled_in)

        if is_new("prefill", self.family, self._params_key, program_key(inputs), *compiled_in.values()):
            timing.compile_seconds += timed(run)[1]
        state, seconds = timed(run)
        timing.add(seconds, prefill_seconds=seconds)
        return state

    def _decode(self, state: DecodeState, num_steps: int, stop_B: np.ndarray, timing: Timing) -> DecodeState:
        def run(num_steps: Any) -> Any:
            with self._devices():
                return decode(self.family, self.params, state, np.int32(num_steps), stop_B)

        if is_new("decode", self.family, self._params_key, program_key(state)):
            state, seconds = timed(lambda: run(0))  # compiles, and takes no step
            timing.compile_seconds += seconds
        state, seconds = timed(lambda: run(num_steps))
        timing.add(seconds)
        return state
