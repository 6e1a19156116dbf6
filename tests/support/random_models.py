"""Tiny random models that generate text, and a simple reference for what they generate."""

import dataclasses

import jax
import numpy as np
from scipy.special import log_softmax

from gptjax import config as configs
from gptjax.model.decoder import Decoder
from gptjax.model.families import family_named, family_of
from gptjax.settings import ModelSettings, TrainingSettings
from gptjax.tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
MAX_POSITIONS = 48


@dataclasses.dataclass(frozen=True)
class Config:
    model: ModelSettings
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)


def make_model(tokenizer=TOKENIZER, scale=0.3, **model):
    """A tiny model with random parameters, so large that its texts do not repeat one token."""
    settings = dict(num_layers=2, width=32, num_heads=4, max_positions=MAX_POSITIONS, dtype="float32")
    section = configs.default().model
    section.update(settings | model)
    resolve = family_named(section.family).resolve
    section = resolve(section, platform="cpu", vocab_size=tokenizer.vocab_size, sequence_length=section.max_positions)
    shapes = jax.eval_shape(lambda: family_of(section).init_params(jax.random.key(0)))
    draw = np.random.default_rng(
        1
    )  # drawn by NumPy, since compiling the initialization would take most of the tests' time
    return jax.tree.map(lambda x: draw.normal(0, scale, x.shape).astype(x.dtype), shapes), Config(section)


FORWARD = jax.jit(lambda config, params, tokens: Decoder(config).apply({"params": params}, tokens), static_argnums=0)


def logits_of(params, config, tokens):
    """Positions do not see padding on their right, so one shape serves all lengths."""
    padded = np.zeros((1, MAX_POSITIONS), np.int32)
    padded[0, : len(tokens)] = tokens
    return np.asarray(FORWARD(config.model, params, padded))[0, : len(tokens)]


def greedy_reference(params, config, prompt, count):
    """Greedy text with a whole forward pass per token."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_of(params, config, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def reference(params, config, tokens, first):
    """(nats, whether all are the likeliest) of tokens[first:], by a separate forward pass."""
    logits = logits_of(params, config, tokens[:-1])
    chosen = np.arange(first - 1, len(tokens) - 1)
    logprobs = log_softmax(logits, axis=-1)[chosen, np.array(tokens[first:])]
    return float(logprobs.sum()), bool((logits.argmax(-1)[chosen] == np.array(tokens[first:])).all())
