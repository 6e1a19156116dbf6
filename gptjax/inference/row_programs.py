"""Runs the compiled programs of generation for rows of completions in progress, and measures their time.

The rows of a call are a batch of one of few shapes (`shapes`). For whole texts, the device's part is one program,
`decode.generate`. For streams and stop strings, it is `decode.prefill` followed by calls of `decode.decode`, one per
piece of the text.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.sharding import Mesh

from gptjax.inference import shapes
from gptjax.inference.beam import beam_search
from gptjax.inference.completion import GrowingCompletion
from gptjax.inference.decode import DecodeState, Written, decode, generate, prefill
from gptjax.inference.devices import devices_of
from gptjax.inference.sampling import make_sampling
from gptjax.inference.timing import Timing, is_new, program_key, timed
from gptjax.model.family import Family
from gptjax.parallel.distributed import fetch

Rows = Sequence[GrowingCompletion]


@dataclass(frozen=True)
class RowPrograms:
    """Completes rows with one model.

    Attributes:
      params: from `decode.decoding_params`.
      num_tokens: the number of tokens of the tokenizer; logits beyond them belong to no token.
      end_id: the token that ends a text; None: there is none.
      mesh: the devices over which `params` are split; None: they are on one device.
    """

    family: Family
    params: Any
    num_tokens: int
    end_id: int | None
    mesh: Mesh | None

    def write(self, rows: Rows, sampling: dict, timing: Timing) -> None:
        """Completes the rows together, in one program."""
        inputs, compiled_in = self.inputs(rows, sampling, timing)
        rooms = tuple(shapes.rooms(compiled_in["num_new"]))

        def run(**changed: Any) -> Any:
            with devices_of(self):
                return generate(self.family, self.params, **(inputs | changed), rooms=rooms, **compiled_in)

        if self._is_new("generate", inputs, rooms, *compiled_in.values()):
            idle = dict(limit_B=np.zeros_like(inputs["limit_B"]))  # compiles, and generates one token per row
            timing.compile_seconds += timed(lambda: run(**idle))[1]
        written, seconds = timed(run)
        timing.add(seconds, prefill_seconds=None)
        self._collect(rows, written, timing)

    def search(self, rows: Rows, num_beams: int, length_penalty: float, timing: Timing) -> Any:
        """Searches for the rows together, in one program; returns `beam.Texts` of NumPy arrays."""
        inputs, compiled_in = self.inputs(rows, {}, timing)
        del inputs["sampling"]
        inputs["penalty"] = np.float32(length_penalty)
        compiled_in |= dict(num_beams=num_beams, num_tokens=self.num_tokens)
        compiled_in |= dict(rooms=tuple(shapes.rooms(compiled_in["num_new"])))

        def run(**changed: Any) -> Any:
            with devices_of(self):
                return beam_search(self.family, self.params, **(inputs | changed), **compiled_in)

        if self._is_new("beam_search", inputs, *compiled_in.values()):
            idle = dict(limit_B=np.zeros_like(inputs["limit_B"]))  # compiles, and takes one step
            timing.compile_seconds += timed(lambda: run(**idle))[1]
        texts, seconds = timed(run)
        timing.add(seconds, prefill_seconds=None)
        return fetch(texts)

    def write_in_pieces(self, rows: Rows, chunk: int, sampling: dict, timing: Timing) -> Iterator[None]:
        """Completes the rows together; yields after every `chunk` or fewer new tokens."""
        inputs, compiled_in = self.inputs(rows, sampling, timing)
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

    def inputs(self, rows: Rows, sampling: dict, timing: Timing) -> tuple[dict, dict]:
        """The arguments of `prefill` and `generate` for these rows, and the static values of both programs."""
        # To have few batch shapes, filled with rows that are done from the start.
        batch = 1 << (len(rows) - 1).bit_length()
        most_tokens = self.family.config[self.family.prompt_field] + (not self.family.continues)
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
            sampling=make_sampling(seeds, num_tokens=self.num_tokens, **sampling),
            eos_id=np.int32(-1 if self.end_id is None else self.end_id),
        )
        return inputs, dict(num_new=shapes.bucketed(max(row.limit for row in rows)), piece=shapes.PIECE)

    def _collect(self, rows: Rows, written: Written, timing: Timing) -> int:
        """Adds the new tokens to the rows; returns the number of tokens of the unfinished rows."""
        tokens_BG, logprobs_BG, length_B = fetch(tuple(written))
        for row, tokens, logprobs, length in zip(rows, tokens_BG, logprobs_BG, length_B):
            before = len(row.tokens)
            row.add(tokens[before:length], logprobs[before:length])
            timing.new_tokens += len(row.tokens) - before
        return max((len(row.tokens) for row in rows if row.finish_reason is None), default=0)

    def _prefill(self, inputs: dict, timing: Timing, **compiled_in: Any) -> DecodeState:
        def run() -> Any:
            with devices_of(self):
                return prefill(self.family, self.params, **inputs, **compiled_in)

        if self._is_new("prefill", inputs, *compiled_in.values()):
            timing.compile_seconds += timed(run)[1]
        state, seconds = timed(run)
        timing.add(seconds, prefill_seconds=seconds)
        return state

    def _decode(self, state: DecodeState, num_steps: int, stop_B: np.ndarray, timing: Timing) -> DecodeState:
        def run(num_steps: Any) -> Any:
            with devices_of(self):
                return decode(self.family, self.params, state, np.int32(num_steps), stop_B)

        if self._is_new("decode", state):
            state, seconds = timed(lambda: run(0))  # compiles, and takes no step
            timing.compile_seconds += seconds
        state, seconds = timed(lambda: run(num_steps))
        timing.add(seconds)
        return state

    def _is_new(self, name: str, arguments: Any, *compiled_in: Any) -> bool:
        return is_new(name, self.family, self._params_key, program_key(arguments), *compiled_in)

    @functools.cached_property
    def _params_key(self) -> Hashable:
        return program_key(self.params)
