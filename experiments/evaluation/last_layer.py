"""Measures what is saved by a last layer that leaves out tokens whose output is not wanted.

python experiments/evaluation/last_layer.py [--layers=6] [--width=384]

Two programs, each with and without it, take turns in one process: log-likelihoods of four choices per context, where
contexts take 30 % of each row and only their last token is wanted; and prompts of 256 tokens before generation, where
only the last token is wanted. The time is that of the processor, which other programs on the machine affect little.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from gptjax import config as configs
from gptjax.evaluation import loglikelihood
from gptjax.evaluation.loglikelihood import Continued, LogLikelihoods
from gptjax.inference.decode import decoding_params
from gptjax.model.blocks import taken
from gptjax.model.decoder_family import DecoderFamily
from gptjax.model.resolve import resolve_model

VOCABULARY, ROW, PROMPTS, PROMPT = 4000, 304, 4, 256


@dataclasses.dataclass(frozen=True)
class Complete(DecoderFamily):
    """Computes the last layer for all tokens, and then takes those that are wanted."""

    def read(self, params, cache, tokens_BT, num_new_B, wanted_BQ=None):
        cache, x_BTD = super().read(params, cache, tokens_BT, num_new_B)
        return cache, x_BTD if wanted_BQ is None else taken(x_BTD, wanted_BQ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--turns", type=int, default=13)
    arguments = parser.parse_args()
    family, params = drawn_model(arguments.layers, arguments.width)
    for name, sides in (("choices", scoring(family, params)), ("prompts", reading(family.config, params))):
        compared(f"{arguments.layers} x {arguments.width}, {name}", sides, arguments.turns)


def drawn_model(layers: int, width: int) -> tuple[DecoderFamily, dict]:
    """A decoder in float32 with drawn parameters."""
    section = configs.default().model
    section.update(dict(num_layers=layers, width=width, num_heads=width // 64))
    section.update(dict(max_positions=1024, dtype="float32", tied_embeddings=False))
    config = resolve_model(section, platform="cpu", vocab_size=VOCABULARY, sequence_length=1024)
    family = DecoderFamily(config)
    return family, decoding_params(family, family.init_params(jax.random.key(0)), "float32")


def choices(groups: int) -> list[Continued]:
    """Four drawn continuations for each of some contexts, which take 30 % of their rows."""
    draw, context = np.random.default_rng(0), int(0.3 * ROW)
    requests = []
    for _ in range(groups):
        beginning = draw.integers(4, VOCABULARY, context).tolist()
        for _ in range(4):
            continuation = draw.integers(4, VOCABULARY, (ROW - context) // 4 + 1).tolist()
            requests.append(Continued([*beginning, *continuation], context))
    return requests


def scoring(family: DecoderFamily, params: dict) -> dict[str, Callable[[], np.ndarray]]:
    """Rows of one context with four choices."""
    requests = choices(1024 // ROW)
    scorer, as_needed = LogLikelihoods(family, params), loglikelihood.num_wanted

    def score(num_wanted: Callable[[int, int], int]) -> np.ndarray:
        loglikelihood.num_wanted = num_wanted
        return np.array([score.nats for _, score in sorted(scorer.score(requests), key=lambda each: each[0])])

    return {
        "whole last layer": functools.partial(score, lambda length, needed: length),
        "wanted tokens": functools.partial(score, as_needed),
    }


def reading(config, params: dict) -> dict[str, Callable[[], np.ndarray]]:
    """Prompts, of which the logits after the last token are used."""
    tokens = np.random.default_rng(0).integers(4, VOCABULARY, (PROMPTS, PROMPT)).astype(np.int32)
    lengths = np.full(PROMPTS, PROMPT, np.int32)
    programs = {
        name: jax.jit(functools.partial(kind(config).prefill, room=64, piece=PROMPT))
        for name, kind in (("whole last layer", Complete), ("wanted tokens", DecoderFamily))
    }
    return {name: lambda run=run: np.asarray(run(params, tokens, lengths)[1]) for name, run in programs.items()}


def compared(name: str, sides: dict[str, Callable[[], np.ndarray]], turns: int) -> None:
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    made = {}
    for turn in range(turns + 1):  # the first one compiles
        for side, run in sides.items():
            before = time.process_time()
            made[side] = run()
            if turn:
                seconds[side].append(time.process_time() - before)
    first, *others = made.values()
    for side, each in seconds.items():
        print(
            f"{name}, {side}: {1e3 * min(each):.1f} ms of processor time at least, "
            f"{1e3 * statistics.median(each):.1f} in the median"
        )
    print(f"largest difference of the results: {max(np.abs(first - other).max() for other in others):.1e}")


if __name__ == "__main__":
    main()
