"""Measures new tokens per second of a model with random weights, by batch size and type of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import jax
import numpy as np
from measure_training import named_config
from timing import TURNS, spread
from worker import is_out_of_memory

from gptjax.inference.generate import Generator
from gptjax.inference.timing import Timing
from gptjax.model.families import family_of
from gptjax.model.resolve import resolve_model


class Tokenizer:
    """A tokenizer of token ids: the text does not matter here, and no token ends it."""

    bos_id = eos_id = None

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def decode_bytes(self, tokens) -> bytes:
        return b"x" * len(tokens)

    def decode(self, tokens) -> str:
        return "x" * len(tokens)


def measure(
    config: str, batches: tuple[int, ...], prompt: int = 128, new: int = 128, model: dict | None = None
) -> Iterator[dict]:
    """read: bytes of weights per second if each weight is read once per step; the memory bandwidth limits it."""
    section = named_config(config).model
    section.update(model or {})
    section.max_positions = max(512, prompt + new)
    platform = jax.devices()[0].platform
    section = resolve_model(section, platform=platform, vocab_size=section.vocab_size, sequence_length=prompt + new)
    params = family_of(section).init_params(jax.random.key(0))
    tokenizer = Tokenizer(section.vocab_size)
    for weights in (section.dtype, "int8"):
        run = SimpleNamespace(model=section)
        generator = Generator(params, run, tokenizer, batch_size=max(batches), weights=weights)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(generator.params))
        for batch in batches:
            row = {"config": config, "batch": batch, "weights": weights, "prompt": prompt, "new": new, "bytes": size}
            rows = np.random.default_rng(1).integers(0, section.vocab_size, (batch, prompt)).tolist()
            try:
                yield row | timed(generator, rows, new, size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                yield row | {"error": "out of memory"}


def timed(generator: Generator, rows: list[list[int]], new: int, size: int) -> dict:
    """Times generation, prefill included."""
    seconds, compile_seconds = [], 0.0
    for _ in range(TURNS + 1):
        timing = Timing()
        completions = generator.generate(rows, max_new_tokens=new, temperature=0.0, timing=timing)
        if any(len(completion.tokens) != new for completion in completions):
            raise RuntimeError("a row ended early")
        seconds.append(timing.seconds)
        compile_seconds += timing.compile_seconds
    seconds = seconds[1:]
    rates = spread(len(rows) * new, seconds, "tokens_per_second")
    read = size * rates["tokens_per_second"] / len(rows)
    return rates | {"read": read, "compile_seconds": compile_seconds}
