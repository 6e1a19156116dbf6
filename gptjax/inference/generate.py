"""Text from a trained model: prompts in, completions out, all at once or piece by piece.

    generator = Generator(params, config, tokenizer)
    for completion in generator.generate(["def main(", "class "], max_new_tokens=64, temperature=0.8):
        print(completion.text)

The host's part of generation is here: prompts become right-aligned batches of bucketed shape, tokens become text, stop
strings end rows. The device's part is `decode.generate`, one program; where somebody watches (a stream, stop strings)
it is `decode.prefill` and, piece by piece, `decode.decode`.

A row ends with its EOS token, with a stop string, after `max_new_tokens`, or with the context: the model reads at most
`model.max_positions` tokens, prompt and text together, so the last token that it can write is the one after them.
"""

from __future__ import annotations

import math
import reprlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import jax
import numpy as np

from gptjax.config import ConfigError, RunError
from gptjax.formatting import counted
from gptjax.inference import cache as kv
from gptjax.inference.decode import WEIGHTS, DecodeState, decode, decoding_params, generate, prefill
from gptjax.inference.sampling import make_sampling
from gptjax.inference.text import TextStream, check_text, stop_strings, unknown_characters
from gptjax.parallel.distributed import fetch

STOP_CHUNK = 16  # tokens between two looks for a stop string
FINISH_REASONS = {  # which limit a text met first
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
    tokens: list[int]  # all that were drawn for the text, EOS or stop string included
    logprobs: list[float]  # of the tokens under the model's own distribution, before temperature and truncation
    finish_reason: str  # one of FINISH_REASONS
    seed: int
    unknown_characters: str = ""  # of the prompt, for which the tokenizer has no token but <unk>


@dataclass
class Timing:
    """Where the time of one call went. The first new token of a row is drawn by the prefill."""

    compile_seconds: float = 0.0
    seconds: float = 0.0  # all but compilation
    prefill_seconds: float | None = 0.0  # of `seconds`; None: one program read and wrote, and nobody can tell
    prompt_tokens: int = 0
    new_tokens: int = 0
    completions: int = 0

    def __add__(self, other: Timing) -> Timing:
        unknown = None in (self.prefill_seconds, other.prefill_seconds)
        return Timing(
            **{
                name: None if name == "prefill_seconds" and unknown else mine + getattr(other, name)
                for name, mine in asdict(self).items()
            }
        )

    @property
    def tokens_per_second(self) -> float:
        """New tokens over all of the time, the prompts' too."""
        return self.new_tokens / max(self.seconds, 1e-9)

    @property
    def prefill_tokens_per_second(self) -> float:
        return self.prompt_tokens / max(self.prefill_seconds, 1e-9)

    @property
    def decode_tokens_per_second(self) -> float:
        return (self.new_tokens - self.completions) / max(self.seconds - self.prefill_seconds, 1e-9)


@dataclass
class _Row:
    """A completion in the making."""

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

    def add(self, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Takes the row's next tokens, until one of them ends it.

        Raises:
          RunError: the logits that a token was drawn from are no distribution: one of them is NaN or infinite.
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
        return Completion(
            *(self.prompt, self.text.text, self.tokens, self.logprobs, self.finish_reason, self.seed),
            self.unknown_characters,
        )


class Generator:
    """A model ready to write.

    Args:
      params: as trained (stacked layers, float32); a copy for decoding is made.
      config: the run's resolved config.
      tokenizer: the run's tokenizer.
      begin_id: the token that every document started after in training (`Dataset.begin_id`, kept in the run's
        checkpoints); None: the tokenizer's EOS.
      batch_size: rows that are generated together; more are done in turn.
      weights: the type of that copy's matrices, one of `decode.WEIGHTS`; None: that of the activations. A narrower one
        saves memory; activations are rounded to it where they are multiplied, and nowhere else.

    `timing` tells where the time of the latest call went.
    """

    def __init__(
        self,
        params,
        config,
        tokenizer,
        *,
        begin_id: int | None = None,
        batch_size: int = 32,
        weights: str | None = None,
    ):
        if tokenizer.vocab_size > config.model.vocab_size:
            raise ConfigError(
                f"tokenizer = {tokenizer.vocab_size} tokens: must be at most model.vocab_size = "
                f"{config.model.vocab_size}; it is not the tokenizer that the model was trained with"
            )
        self.config = config.model
        self.tokenizer = tokenizer
        self.begin_id = tokenizer.eos_id if begin_id is None else begin_id
        self.batch_size = batch_size
        self.weights = weights or self.config.dtype
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights = {weights!r}: expected one of {', '.join(WEIGHTS)}")
        self.params = decoding_params(self.config, params, self.weights)
        self._weights_key = _key(self.params)
        self.timing = Timing()

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int = 128,
        stop: str | Sequence[str] = (),
        seeds: int | Sequence[int] = 0,
        begin: bool = True,
        **sampling,
    ) -> list[Completion]:
        """Continues every prompt `num_samples` times: all samples of the first prompt, then of the second, …

        Args:
          prompts: texts, or token ids, which are taken as they are unless there are none.
          stop: the text ends before the first of these strings.
          seeds: one integer s gives the samples of each prompt the seeds s, s + 1, …; a sequence gives one to each
            completion. A completion depends on its prompt and seed alone, up to the rounding of float arithmetic.
          begin: True: a text is the beginning of a document, and stands after the begin token as it did in training.
            False: it stands somewhere inside a document.
          sampling: temperature, top_k, top_p, min_p, repetition_penalty (see `sampling.make_sampling`).

        Raises:
          ConfigError: a prompt is longer than the context, or a value is out of its range.
          RunError: the model's logits are not finite.
        """
        seeds = [seeds + j for _ in prompts for j in range(num_samples)] if np.ndim(seeds) == 0 else seeds
        if len(seeds) != len(prompts) * num_samples:
            raise ConfigError(
                f"seeds = {len(seeds)} numbers: must be one for each of {len(prompts)} prompts × {num_samples} samples"
            )
        stop = stop_strings(stop)
        repeated = [prompt for prompt in prompts for _ in range(num_samples)]
        rows = [self._row(prompt, seed, max_new_tokens, stop, begin) for prompt, seed in zip(repeated, seeds)]
        self.timing = Timing()
        by_length = sorted(rows, key=lambda row: len(row.prompt_tokens))  # alike together: less padding
        for first in range(0, len(rows), self.batch_size):
            batch = by_length[first : first + self.batch_size]
            if stop:
                for _ in self._write_in_pieces(batch, STOP_CHUNK, sampling):
                    pass
            else:
                self._write(batch, sampling)
        return [row.completion() for row in rows]

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 128,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        begin: bool = True,
        chunk: int = 8,
        **sampling,
    ) -> Iterator[str]:
        """Yields the text that `generate` would return, in pieces, `chunk` tokens at a time; returns the Completion.

        A piece holds whole characters and no part of a stop string. Take the Completion with `yield from`.
        """
        row = self._row(prompt, seed, max_new_tokens, stop_strings(stop), begin)
        self.timing = Timing()
        for _ in self._write_in_pieces([row], chunk, sampling):
            if piece := row.text.take():
                yield piece
        return row.completion()

    def _row(self, prompt, seed: int, max_new_tokens: int, stop: tuple[str, ...], begin: bool) -> _Row:
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {max_new_tokens}: must be at least 1")
        is_text = isinstance(prompt, str)
        if is_text:
            check_text("prompt", prompt)
        tokens = [int(token) for token in (self.tokenizer.encode(prompt) if is_text else prompt)]
        prompt = prompt if is_text else self.tokenizer.decode(tokens)
        begin = begin and self.begin_id is not None and (is_text or not tokens)
        if begin:
            tokens = [self.begin_id, *tokens]
        if not tokens:
            raise ConfigError("prompt = '': must not be empty without a begin token before it")
        if len(tokens) > self.config.max_positions:
            raise ConfigError(
                f"prompt = {counted(len(tokens), 'token')}{' with the begin token' * begin}: must be at most "
                f"model.max_positions = {self.config.max_positions}"
            )
        if not 0 <= min(tokens) <= max(tokens) < self.config.vocab_size:
            extremes = f"{min(tokens)} to {max(tokens)}"
            raise ConfigError(f"prompt = token ids from {extremes}: must be from 0 to {self.config.vocab_size - 1}")
        room = self.config.max_positions - len(tokens) + 1
        return _Row(
            prompt=prompt,
            prompt_tokens=tokens,
            seed=seed,
            limit=min(max_new_tokens, room),
            limited_by="max_new_tokens" if max_new_tokens <= room else "context",
            eos_id=self.tokenizer.eos_id,
            text=TextStream(self.tokenizer, stop, begins=begin and len(tokens) == 1),
            unknown_characters=unknown_characters(self.tokenizer, prompt) if is_text else "",
        )

    def _write(self, rows: list[_Row], sampling: dict) -> None:
        """Completes the rows together, in one program."""
        inputs, T, num_new = self._inputs(rows, sampling)
        slots = tuple(T + room for room in kv.rooms(num_new))

        def run(**changed):
            state = generate(self.config, self.params, **(inputs | changed), slots=slots, num_new=num_new)
            return jax.block_until_ready(state)

        if _is_new(
            "generate", self.config, self._weights_key, _key(inputs), slots, num_new
        ):  # compiles, and writes one token a row
            idle = dict(limit_B=np.zeros_like(inputs["limit_B"]))
            _, self.timing.compile_seconds = _timed(lambda: run(**idle), self.timing.compile_seconds)
        state, self.timing.seconds = _timed(run, self.timing.seconds)
        self.timing.prefill_seconds = None
        self._collect(rows, state)

    def _write_in_pieces(self, rows: list[_Row], chunk: int, sampling: dict) -> Iterator[None]:
        """Completes the rows together; yields whenever they have grown, by at most `chunk` tokens."""
        inputs, T, num_new = self._inputs(rows, sampling)
        padding = [True] * (len(inputs["limit_B"]) - len(rows))
        longest = max(row.limit for row in rows)
        rooms = kv.rooms(num_new)
        state = self._prefill(inputs, slots=T + rooms[0], num_new=num_new)
        step = self._collect(rows, state)
        yield
        while any(row.finish_reason is None for row in rows):
            room = next(room for room in rooms if room > step)
            if kv.num_slots(state.cache) < T + room:
                state = state.replace(cache=kv.grow(state.cache, T + room))
            stop_B = np.array([row.finish_reason is not None for row in rows] + padding)
            state = self._decode(state, step, min(step + chunk, room, longest), stop_B)
            step = self._collect(rows, state)
            yield

    def _inputs(self, rows: list[_Row], sampling: dict) -> tuple[dict, int, int]:
        """What `prefill` and `generate` take for these rows, the prompts' slots T, and the room for new tokens."""
        batch = 1 << (len(rows) - 1).bit_length()  # few batch shapes: filled up with rows that are done at once
        T = kv.prompt_slots(max(len(row.prompt_tokens) for row in rows), self.config.max_positions)
        prompt_BT, start_B = np.zeros((batch, T), np.int32), np.full(batch, T - 1, np.int32)
        limit_B = np.zeros(batch, np.int32)
        for index, row in enumerate(rows):
            start_B[index], limit_B[index] = T - len(row.prompt_tokens), row.limit
            prompt_BT[index, start_B[index] :] = row.prompt_tokens
        seeds = [row.seed for row in rows] + [0] * (batch - len(rows))
        self.timing.completions += len(rows)
        self.timing.prompt_tokens += sum(len(row.prompt_tokens) for row in rows)
        inputs = dict(
            prompt_BT=prompt_BT,
            start_B=start_B,
            limit_B=limit_B,
            sampling=make_sampling(seeds, num_tokens=self.tokenizer.vocab_size, **sampling),
            eos_id=np.int32(-1 if self.tokenizer.eos_id is None else self.tokenizer.eos_id),
        )
        return inputs, T, kv.bucketed(max(row.limit for row in rows))

    def _collect(self, rows: list[_Row], state: DecodeState) -> int:
        """Hands the rows their new tokens; returns how many the longest row has."""
        step, tokens_BG, logprobs_BG, length_B = fetch((state.step, state.tokens_BG, state.logprobs_BG, state.length_B))
        for row, tokens, logprobs, length in zip(rows, tokens_BG, logprobs_BG, length_B):
            before = len(row.tokens)
            row.add(tokens[before:length], logprobs[before:length])
            self.timing.new_tokens += len(row.tokens) - before
        return int(step)

    def _prefill(self, inputs: dict, **shapes) -> DecodeState:
        def run():
            return jax.block_until_ready(prefill(self.config, self.params, **inputs, **shapes))

        if _is_new("prefill", self.config, self._weights_key, _key(inputs), *shapes.values()):
            _, self.timing.compile_seconds = _timed(run, self.timing.compile_seconds)
        state, seconds = _timed(run, 0.0)
        self.timing.prefill_seconds += seconds
        self.timing.seconds += seconds
        return state

    def _decode(self, state: DecodeState, step: int, until: int, stop_B: np.ndarray) -> DecodeState:
        def run(until):
            return jax.block_until_ready(decode(self.config, self.params, state, np.int32(until), stop_B))

        # The first call compiles, and takes no step.
        if _is_new("decode", self.config, self._weights_key, _key(state)):
            state, self.timing.compile_seconds = _timed(lambda: run(step), self.timing.compile_seconds)
        state, self.timing.seconds = _timed(lambda: run(until), self.timing.seconds)
        return state


_compiled: set[tuple] = set()  # programs that ran: JAX keeps them for the process, whichever generator calls


def _is_new(*program) -> bool:
    """Whether the next call of this program compiles it, so that compiling is not timed as generating.

    program: its name, what is compiled in, and the keys of its arguments.
    """
    program += (jax.sharding.get_abstract_mesh(), jax.config.jax_default_matmul_precision)
    is_new = program not in _compiled
    _compiled.add(program)
    return is_new


def _key(arguments) -> tuple:
    """All of some arguments that a compiled program depends on: their structure, shapes, types and places."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves)


def _timed(run: Callable[[], DecodeState], seconds: float) -> tuple[DecodeState, float]:
    """What `run` returns, and `seconds` with those that it took added."""
    began = time.perf_counter()
    result = run()
    return result, seconds + time.perf_counter() - began
