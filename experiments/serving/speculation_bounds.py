"""How fast can speculation be for larger models and for real answers? python experiments/serving/speculation_bounds.py

  … --of=steps          what a step for several tokens costs, by size of the model and type of weights
  … --of=texts --scitldr=dev.jsonl --squad=squad.json   how much of real answers the lookup proposes

A step is timed with random weights. For texts, a token is a word, a number of up to three digits or a run of signs, as
nearly so for large vocabularies. Edits are those of this repository's history: the old file and the message of the
commit are the prompt, and the new file is the text.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags

from gptjax.config import default
from gptjax.inference.decode import decoding_params
from gptjax.inference.speculation import LONGEST
from gptjax.model.families import family_of
from gptjax.model.resolve import resolve_model

flags.DEFINE_enum("of", "steps", ["steps", "texts"], "What is measured.")
flags.DEFINE_list("models", ["2.6M", "16M", "124M"], "Shapes of models.")
flags.DEFINE_list("weights", ["float32", "bfloat16", "int8"], "Types of weights.")
flags.DEFINE_list("rows", ["1", "8"], "Texts that are written at the same time.")
flags.DEFINE_list("proposed", ["2", "4", "8"], "Tokens that are proposed at a time.")
flags.DEFINE_integer("repeats", 7, "Turns.")
flags.DEFINE_integer("count", 150, "Texts of each kind.")
flags.DEFINE_string("scitldr", None, "A file of SciTLDR: abstracts and their summaries in a sentence.")
flags.DEFINE_string(
    "squad", None, "A file in the format of SQuAD 1.1: questions about a text, and where the answer is."
)
flags.DEFINE_multi_string("task", [], "A file of Natural Instructions; may be repeated.")
FLAGS = flags.FLAGS
REPOSITORY = Path(__file__).parents[2]
LLAMA = dict(feedforward="swiglu", position="rope", norm="rmsnorm", bias="none")
MODELS = {
    "2.6M": dict(num_layers=4, width=192, num_heads=3, feedforward_width=512, vocab_size=4096, **LLAMA),
    "16M": dict(num_layers=8, width=384, num_heads=6, feedforward_width=1024, vocab_size=8192, **LLAMA),
    "124M": dict(num_layers=12, width=768, num_heads=12, vocab_size=50304),
}
CONTEXT, READ, STEPS = 256, 128, 4  # slots of a row, tokens that it has read, steps per call
PIECE = re.compile(r" ?[A-Za-z]+| ?[0-9]{1,3}| ?[^\sA-Za-z0-9]+|\s+")


# --- What a step costs


def seconds_of_steps(name: str, weights: str, rows: int, sizes: list[int]) -> dict[int, float]:
    """Median seconds of a step that reads so many tokens in each row and finds the likeliest token after each."""
    section = default().model
    section.update(tied_embeddings=True, dtype="bfloat16" if weights == "bfloat16" else "float32")
    section.update(max_positions=CONTEXT, **MODELS[name])
    family = family_of(
        resolve_model(section, platform="cpu", vocab_size=section.vocab_size, sequence_length=section.max_positions)
    )
    params = decoding_params(family, family.init_params(jax.random.key(0)), weights)
    lengths_B = jnp.full(rows, READ, jnp.int32)

    @partial(jax.jit, donate_argnums=0)
    def steps(cache, tokens_BT, params):
        def step(_, carry):
            cache, tokens_BT = carry
            if tokens_BT.shape[1] == 1:
                cache, logits_BV = family.step(params, cache, tokens_BT[:, 0], jnp.ones(rows, bool))
                logits_BTV = logits_BV[:, None]
            else:
                cache, x_BTD = family.read(params, cache, tokens_BT, jnp.full(rows, tokens_BT.shape[1]))
                logits_BTV = family.logits(params, x_BTD)
            return cache.replace(lengths_B=lengths_B), logits_BTV.argmax(-1).astype(jnp.int32)

        return jax.lax.fori_loop(0, STEPS, step, (cache, tokens_BT))

    states = {size: (family.empty_cache(rows, CONTEXT), jnp.ones((rows, size), jnp.int32)) for size in sizes}
    taken: dict[int, list[float]] = {size: [] for size in sizes}
    for repeat in range(FLAGS.repeats + 1):  # by turns; the first compiles
        for size in sizes:
            began = time.perf_counter()
            states[size] = jax.block_until_ready(steps(*states[size], params))
            if repeat:
                taken[size].append((time.perf_counter() - began) / STEPS)
    return {size: statistics.median(values) for size, values in taken.items()}


def report_steps() -> None:
    sizes = [1, *(1 + int(count) for count in FLAGS.proposed)]
    print(
        "| model | weights | texts at a time | 1 token, ms | "
        + " | ".join(f"{size} tokens / 1 token" for size in sizes[1:])
        + " |"
    )
    print("|---|---|--:|--:|" + "--:|" * (len(sizes) - 1))
    for name in FLAGS.models:
        for weights in FLAGS.weights:
            for rows in FLAGS.rows:
                cost = seconds_of_steps(name, weights, int(rows), sizes)
                ratios = " | ".join(f"{cost[size] / cost[1]:.2f}" for size in sizes[1:])
                print(f"| {name} | {weights} | {rows} | {1000 * cost[1]:.2f} | {ratios} |", flush=True)


# --- How much of real answers the lookup proposes

Pair = tuple[str, str]  # a prompt and the text that follows it


def proposal(tokens: list[str], count: int) -> list[str]:
    """What `speculation.propose` proposes."""
    for size in range(LONGEST, 0, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                return [tokens[end + place % (len(tokens) - end)] for place in range(count)]
    return []


def steps_of(prompt: list[str], text: list[str], count: int) -> tuple[int, int, int]:
    """Steps for the text after its first token, and proposed and accepted tokens."""
    done, steps, proposed, accepted = 1, 0, 0, 0
    while done < len(text):
        tokens = proposal([*prompt, *text[:done]], count)
        right = [a == b for a, b in zip(tokens, text[done : len(text) - 1])]
        gained = [*right, False].index(False)
        done, steps = done + gained + 1, steps + 1
        proposed, accepted = proposed + len(tokens), accepted + gained
    return steps, proposed, accepted


def summaries(path: str) -> Iterator[Pair]:
    for line in Path(path).read_text().splitlines():
        paper = json.loads(line)
        yield " ".join(paper["source"]) + "\n\nIn one sentence:", " " + paper["target"][0]


def quotes(path: str) -> Iterator[Pair]:
    """Questions, answered with the sentence of the text that holds the answer."""
    for article in json.loads(Path(path).read_text())["data"]:
        for paragraph in article["paragraphs"]:
            text = paragraph["context"]
            for asked in paragraph["qas"]:
                place = asked["answers"][0]["answer_start"]
                first, last = text.rfind(". ", 0, place), text.find(". ", place)
                sentence = text[first + 2 if first >= 0 else 0 : last + 1 if last >= 0 else len(text)]
                yield f"{text}\n\n{asked['question']}\n", sentence


def instructions(path: str) -> Iterator[Pair]:
    task = json.loads(Path(path).read_text())
    for each in task["Instances"]:
        yield f"{task['Definition'][0]}\n\n{each['input']}\n", each["output"][0]


def edits() -> Iterator[Pair]:
    """Python files of up to 8,000 characters, and what a commit made of them."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", REPOSITORY, *words], capture_output=True, text=True, check=True).stdout

    for line in git("log", "--no-merges", "--diff-filter=M", "--raw", "--no-abbrev", "--format=", "-400").splitlines():
        _, _, old, new, rest = line.split(" ")
        if rest.endswith(".py"):
            before = git("cat-file", "blob", old)
            if len(before) <= 8000:
                yield before, git("cat-file", "blob", new)


def report_texts() -> None:
    kinds = [("edits of code", edits())]
    kinds += [("summaries of abstracts", summaries(FLAGS.scitldr))] if FLAGS.scitldr else []
    kinds += [("questions, answered by a sentence of the text", quotes(FLAGS.squad))] if FLAGS.squad else []
    kinds += [(Path(path).stem, instructions(path)) for path in FLAGS.task]
    counts = [int(count) for count in FLAGS.proposed]
    print("| texts | tokens of a text | " + " | ".join(f"{count} proposed" for count in counts) + " |")
    print("|---|--:|" + "--:|" * len(counts))
    for kind, pairs in kinds:
        split = [(PIECE.findall(prompt), PIECE.findall(text)) for prompt, text in pairs]
        split = [(prompt, text) for prompt, text in split if len(text) > 1]
        split = random.Random(0).sample(split, min(FLAGS.count, len(split)))
        length, cells = statistics.mean(len(text) for _, text in split), []
        for count in counts:
            steps, proposed, accepted = map(sum, zip(*(steps_of(*pair, count) for pair in split)))
            tokens = sum(len(text) - 1 for _, text in split)
            cells.append(f"{tokens / steps:.2f} ({accepted / max(1, proposed):.0%})")
        print(f"| {kind} | {length:.0f} | " + " | ".join(cells) + " |", flush=True)


def main(argv: list[str]) -> None:
    del argv
    report_steps() if FLAGS.of == "steps" else report_texts()


if __name__ == "__main__":
    app.run(main)
