"""How the next token is chosen: greedily, by temperature, from the top k or the top p, or by a beam search.

  python experiments/from_scratch/decoding.py --workdir=runs/verdict --prompt='I had always'

draws the probabilities of the next token of a trained run (decoding.png beside this file). The functions are for one
row of logits; gptjax/inference/sampling.py has them for a batch, with settings per row, and beam.py the search.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from gptjax import tokenizer as tokenizers
from gptjax.model.families import family_of
from gptjax.training.checkpoints.loading import load_for_inference


def with_temperature(logits_V: jax.Array, temperature: float) -> jax.Array:
    """Below 1, the probable tokens get more of the probability; above 1, the improbable ones."""
    return logits_V / temperature


def top_k(logits_V: jax.Array, k: int) -> jax.Array:
    """Only the k most probable tokens can be drawn."""
    return jnp.where(logits_V >= jnp.sort(logits_V)[-k], logits_V, -jnp.inf)


def top_p(logits_V: jax.Array, p: float) -> jax.Array:
    """Only the fewest tokens that together have probability p can be drawn: few where the model is sure, else many."""
    order_V = jnp.argsort(-logits_V)
    probability_V = jax.nn.softmax(logits_V)[order_V]
    mass_before_V = jnp.cumsum(probability_V) - probability_V
    return logits_V.at[order_V].set(jnp.where(mass_before_V < p, logits_V[order_V], -jnp.inf))


def draw(key: jax.Array, logits_V: jax.Array) -> jax.Array:
    """A token by its probability: softmax(logits). The same key always draws the same token."""
    return jax.random.categorical(key, logits_V)


def beam_search(logprobs_of: Callable[[list[int]], jax.Array], width: int, num_new: int) -> tuple[float, list[int]]:
    """The most probable text of `num_new` tokens that a search finds, with its log-probability.

    At each step, each of the `width` best beginnings is extended by every token, and the best `width` of all these are
    kept. With a width of 1 this is greedy decoding. A greedy choice cannot be taken back; a beam that was second can
    still win.

    Args:
      logprobs_of: the log-probabilities [V] of the token after a beginning.
    """
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(num_new):
        longer = [
            (score + logprob, [*tokens, token])
            for score, tokens in beams
            for token, logprob in enumerate(logprobs_of(tokens).tolist())
        ]
        beams = sorted(longer, key=lambda beam: -beam[0])[:width]
    return beams[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--prompt", default="I had always")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("decoding.png"))
    options = parser.parse_args()
    params, config, metadata = load_for_inference(options.workdir, "best")
    tokenizer = tokenizers.load(options.workdir)
    model = family_of(config.model).module()
    prompt = [metadata["fingerprint"].get("begin_id", tokenizer.eos_id), *tokenizer.encode(options.prompt)]
    logits_V = model.apply({"params": params}, jnp.asarray([prompt]))[0, -1]

    ways = {
        "temperature 1": logits_V,
        "temperature 0.5": with_temperature(logits_V, 0.5),
        "temperature 2": with_temperature(logits_V, 2.0),
        "top-k, k = 5": top_k(logits_V, 5),
        "top-p, p = 0.5": top_p(logits_V, 0.5),
    }
    shown = jnp.argsort(-logits_V)[:20]
    figure, panels = plt.subplots(1, len(ways), figsize=(11, 3.4), sharey=True)
    for panel, (name, logits) in zip(panels, ways.items()):
        panel.barh(range(20), jax.nn.softmax(logits)[shown], color="tab:blue")
        panel.set_title(name, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(20), [repr(tokenizer.decode([int(token)])) for token in shown], fontsize=7)
    panels[0].invert_yaxis()
    figure.supxlabel(f"probability of the next token after {options.prompt!r}", fontsize=9)
    figure.tight_layout()
    figure.savefig(options.output, dpi=80)


if __name__ == "__main__":
    main()
