"""Generates completions of prompts with a trained model, all at once or piece by piece.

    generator = Generator(params, config, tokenizer)
    for completion in generator.generate(["def main(", "class "], max_new_tokens=64, temperature=0.8):
        print(completion.text)

A generator makes a row of each prompt (`prompt_framing`), completes the rows in batches (`row_programs`), and turns
their tokens into text (`completion`). It has no mutable state: the text of a call so far is in its rows, and the time
is in the `Timing` that the caller passes.

A row ends with its EOS token, with a stop string, after `max_new_tokens`, or at the end of the context: the model reads
at most `model.max_positions` tokens, prompt and text together, and can generate one more.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gptjax.config import ConfigError
from gptjax.inference.completion import Completion, GrowingCompletion
from gptjax.inference.decode import WEIGHTS, decoding_params
from gptjax.inference.devices import devices_of
from gptjax.inference.prompt_framing import FramedPrompt, Framing, between_pairs
from gptjax.inference.row_programs import RowPrograms
from gptjax.inference.text import TextStream, stop_strings, unknown_characters
from gptjax.inference.timing import Timing
from gptjax.model.families import merged_model, reading_family_of
from gptjax.model.one_row import MOST_ROWS
from gptjax.parallel.placement import MeshPlacement
from gptjax.settings import MeshSettings, Settings
from gptjax.tokenizer import Tokenizer

STOP_CHUNK = 16  # tokens between two searches for a stop string


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
      batch_size: the number of rows that are generated together; further rows follow in more batches. A small number
        makes small batches faster on a CPU: the matrices are then stored for few rows (`is_for_few_rows`).
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
        self.after_source = between_pairs(objective, tokenizer.eos_id, self.begin_id)
        self.batch_size = batch_size
        self.weights = weights or self.config.dtype
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights = {weights!r}: expected one of {', '.join(WEIGHTS)}")
        self.family, self.mesh = reading_family_of(self.config), mesh
        if mesh is not None:
            self.family = replace(self.family, placement=MeshPlacement(MeshSettings()))
        if not self.family.writes:
            raise ConfigError(f"model.family = {self.config.family!r}: such a model reads text and cannot write it")
        self._framing = Framing(self.family, self.source_tokenizer, self.begin_id, self.after_source)
        self.separator = self._framing.separator
        with devices_of(self):
            self.params = decoding_params(self.family, params, self.weights, self.is_for_few_rows)
        self._programs = RowPrograms(self.family, self.params, tokenizer.vocab_size, self.end_id, mesh)

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
                for _ in self._programs.write_in_pieces(batch, STOP_CHUNK, sampling, timing):
                    pass
            else:
                self._programs.write(batch, sampling, timing)
        return [row.finished() for row in rows]

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
            found = self._programs.search([texts[0] for texts in batch], num_beams, length_penalty, timing)
            for place, texts in enumerate(batch):
                for rank, row in enumerate(texts):
                    length, row.score = int(found.length_BW[place, rank]), float(found.score_BW[place, rank])
                    row.add(found.tokens_BWG[place, rank, :length], found.logprobs_BWG[place, rank, :length])
                timing.new_tokens += len(texts[0].tokens)
        return [row.finished() for texts in texts_of for row in texts if row.tokens]  # no tokens, no text

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
        timing = Timing() if timing is None else timing
        for _ in self._programs.write_in_pieces([row], chunk, sampling, timing):
            if piece := row.text.take():
                yield piece
        return row.finished()

    @property
    def is_for_few_rows(self) -> bool:
        """Whether float32 matrices are stored as a CPU multiplies them fastest by a row or a few (see
        `model/one_row.py`)."""
        is_float32 = self.weights == self.config.dtype == "float32"
        return is_float32 and self.mesh is None and jax.default_backend() == "cpu" and self.batch_size <= MOST_ROWS

    def framed(self, prompt: str | Sequence[int], begin: bool = True) -> FramedPrompt:
        """What the model reads for a prompt (see `Framing.framed`)."""
        return self._framing.framed(prompt, begin)

    def _row(
        self, prompt: Any, seed: int, max_new_tokens: int, stop: tuple[str, ...], begin: bool
    ) -> GrowingCompletion:
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {max_new_tokens}: must be at least 1")
        framed = self.framed(prompt, begin)
        room = self.family.room(len(framed.tokens))
        return GrowingCompletion(
            prompt=framed.text,
            prompt_tokens=framed.tokens,
            seed=seed,
            limit=min(max_new_tokens, room),
            limited_by="max_new_tokens" if max_new_tokens <= room else "context",
            eos_id=self.end_id,
            text=TextStream(self.tokenizer, stop, begins=framed.begins_text),
            unknown_characters=unknown_characters(self.source_tokenizer, prompt) if isinstance(prompt, str) else "",
        )
