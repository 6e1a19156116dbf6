"""Would speculation from the prompt's own n-grams pay? python experiments/serving/speculation.py --workdir=RUN

Speculation proposes the tokens that followed the last few tokens the last time they occurred in the prompt or the text,
and the model reads all of them in one call; those that it would have drawn itself are kept. This program measures both
parts for greedy texts of a run: how many tokens such a call would give, by comparing the proposals with the text that
the model writes without them, and what a call for that many tokens costs beside a call for one.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from gptjax import tokenizer
from gptjax.inference.generate import Generator
from gptjax.training.checkpoint import load_for_inference

flags.DEFINE_string("workdir", None, "A run.", required=True)
flags.DEFINE_integer("prompts", 12, "Prompts of each kind.")
flags.DEFINE_integer("new", 64, "Tokens of each text.")
flags.DEFINE_integer("longest", 3, "Tokens that are looked up; if they did not occur, fewer are, down to 1.")
flags.DEFINE_list("proposed", ["2", "4", "8"], "Tokens that are proposed at a time.")
flags.DEFINE_list("rows", ["1", "8"], "Texts that are written at the same time.")
flags.DEFINE_integer("repeats", 9, "Measurements of a call.")
FLAGS = flags.FLAGS
REPOSITORY = Path(__file__).parents[2]


def prompts() -> dict[str, list[str]]:
    """Texts to summarise, in which much occurs that an answer repeats, and short questions."""
    draw, text = np.random.default_rng(0), (REPOSITORY / "README.md").read_text()
    starts = draw.integers(0, len(text) - 500, FLAGS.prompts)
    documents = [f"{text[start : start + 400]}\n\nIn short, " for start in starts]
    words = [word.strip("`.,:*|()") for word in text.split()]
    asked = draw.choice(sorted({word for word in words if word.isalpha() and len(word) > 5}), FLAGS.prompts)
    return {"a summary": documents, "a question": [f"What is {word}?\n" for word in asked]}


def proposal(tokens: list[int], count: int) -> list[int]:
    """What followed the last tokens the last time that they occurred before."""
    for length in range(FLAGS.longest, 0, -1):
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == tokens[-length:]:
                return tokens[start + length : start + length + count]
    return []


def tokens_per_call(prompt: list[int], text: list[int], count: int) -> float:
    """Tokens of the text for each call that reads the latest token and a proposal."""
    done, calls = 1, 0  # the first token comes from the prompt
    while done < len(text):
        proposed = proposal([*prompt, *text[:done]], count)
        following = text[done : done + len(proposed)]
        is_right = [a == b for a, b in zip(proposed, following)]
        done += [*is_right, False].index(False) + 1  # the model draws the token after those by itself
        calls += 1
    return (len(text) - 1) / max(calls, 1)


def seconds_of_calls(generator: Generator, rows: int, slots: int) -> dict[int, float]:
    """Median seconds of a call that reads so many tokens in each row, and finds the likeliest token after each."""
    family = generator.family

    @jax.jit
    def call(params, cache, tokens_BT):
        _, x_BTD = family.read(params, cache, tokens_BT, np.full(rows, tokens_BT.shape[1], np.int32))
        return family.logits(params, x_BTD).argmax(-1)

    cache = family.empty_cache(rows, slots)
    sizes, taken = [1, *(int(count) + 1 for count in FLAGS.proposed)], {}
    for size in sizes:
        call(generator.params, cache, np.ones((rows, size), np.int32)).block_until_ready()
        taken[size] = []
    for _ in range(FLAGS.repeats):  # by turns, so that a busy machine is busy for all
        for size in sizes:
            began = time.perf_counter()
            call(generator.params, cache, np.ones((rows, size), np.int32)).block_until_ready()
            taken[size].append(time.perf_counter() - began)
    return {size: statistics.median(values) for size, values in taken.items()}


def main(argv: list[str]) -> None:
    del argv
    params, config, metadata = load_for_inference(FLAGS.workdir)
    own = tokenizer.load(FLAGS.workdir)
    generator = Generator(params, config, own, begin_id=metadata["fingerprint"].get("begin_id"), end_id=-1)
    costs = {rows: seconds_of_calls(generator, int(rows), config.model.max_positions) for rows in FLAGS.rows}
    print("| prompt | proposed | tokens per call | " + " | ".join(f"speed, {rows} rows" for rows in costs) + " |")
    print("|---|--:|--:|" + "--:|" * len(costs))
    for kind, texts in prompts().items():
        done = generator.generate(texts, max_new_tokens=FLAGS.new, temperature=0.0)
        pairs = [(generator.framed(each.prompt).tokens, each.tokens) for each in done]
        for count in map(int, FLAGS.proposed):
            gained = statistics.mean(tokens_per_call(prompt, text, count) for prompt, text in pairs)
            speeds = (f"{gained * cost[1] / cost[count + 1]:.2f}" for cost in costs.values())
            print(f"| {kind} | {count} | {gained:.2f} | " + " | ".join(speeds) + " |", flush=True)
    for rows, cost in costs.items():
        each = ", ".join(f"{size} tokens {1000 * seconds:.1f} ms" for size, seconds in cost.items())
        print(f"a call for {rows} rows: {each}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
