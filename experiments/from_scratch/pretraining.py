"""Pretraining from scratch: a plain loop that trains the GPT of gpt.py on one small text.

  python experiments/from_scratch/pretraining.py --input=the-verdict.txt

gptjax/train.py does the same for every model, mesh and kind of data, and can be stopped and resumed at any step.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gpt import Params, count, gpt, init
from tokenizer import Tokenizer, learn
from windows import windows


def loss_of(params: Params, tokens_BT: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """Cross-entropy in nats: the mean of -log p(target). exp(loss) is the perplexity."""
    logprobs_BTV = jax.nn.log_softmax(gpt(params, tokens_BT), axis=-1)
    return -jnp.take_along_axis(logprobs_BTV, targets_BT[..., None], axis=-1).mean()


def make_step(optimizer: optax.GradientTransformation):
    """The compiled update: parameters and optimizer state in, new ones and the loss out.

    The old arrays are donated: their memory is used for the new ones, and they cannot be read any more.
    """

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: optax.OptState, tokens_BT: jax.Array, targets_BT: jax.Array):
        loss, gradients = jax.value_and_grad(loss_of)(params, tokens_BT, targets_BT)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


@jax.jit
def next_logits(params: Params, tokens_1T: jax.Array, length: jax.Array) -> jax.Array:
    """Logits of the token after the first `length` tokens; those behind them are not seen."""
    return gpt(params, tokens_1T)[0, length - 1]


def continued(params: Params, tokens: list[int], num_new: int, vocab: int | None = None) -> list[int]:
    """Appends the most probable token, again and again. Each reads everything again: see the page about the cache.

    The row has its full length from the start, because each new shape of an input would be compiled again.

    Args:
      vocab: only the first `vocab` tokens can be appended; None: all.
    """
    row_1T = np.zeros((1, len(tokens) + num_new), np.int32)
    row_1T[0, : len(tokens)] = tokens
    for place in range(len(tokens), row_1T.shape[1]):
        row_1T[0, place] = next_logits(params, row_1T, np.int32(place))[:vocab].argmax()
    return row_1T[0].tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=300)
    parser.add_argument("--length", type=int, default=256, help="tokens in a window")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--prompt", default="Every effort moves you")
    options = parser.parse_args()

    text = options.input.read_text(encoding="utf-8")
    tokenizer = Tokenizer(*learn(text, options.pieces))
    cut = int(0.9 * len(text))
    train, held_out = (
        windows(tokenizer.encode(part), options.length, options.length) for part in (text[:cut], text[cut:])
    )
    vocab = 256 + len(tokenizer.tokens)
    sizes = dict(vocab=vocab, positions=options.length, width=options.width, layers=options.layers)
    params = init(jax.random.key(0), heads=max(1, options.width // 64), **sizes)
    print(f"{count(params):,} parameters, {train[0].size:,} tokens to train on, {held_out[0].size:,} held out")

    optimizer = optax.adamw(4e-4, weight_decay=0.1)
    state, step, evaluate = optimizer.init(params), make_step(optimizer), jax.jit(loss_of)
    order = np.random.default_rng(0)
    for epoch in range(options.epochs):
        losses = []
        for rows in order.permutation(len(train[0]))[: len(train[0]) // 2 * 2].reshape(-1, 2):
            params, state, loss = step(params, state, train[0][rows], train[1][rows])
            losses.append(loss)  # not float(loss): that would wait for the device at every step
        valid = float(evaluate(params, *held_out))
        print(f"epoch {epoch + 1:2}  loss {np.mean(losses):.3f}  held out {valid:.3f}")
    prompt = tokenizer.encode(options.prompt)
    print(tokenizer.decode(continued(params, prompt, min(40, options.length - len(prompt)))))


if __name__ == "__main__":
    main()
