"""What does speculation bring? python experiments/serving/speculation.py --workdir=RUN

Engines with and without proposals (serve --num_speculative_tokens) write the same texts by turns: tokens per second,
processor time per token, tokens per step of a text, and the share of proposed tokens that were accepted. The program
checks that all write the same texts and that nothing is compiled while it is measured.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from gptjax import tokenizer
from gptjax.inference.engine import Engine
from gptjax.inference.generate import Generator
from gptjax.inference.sampling_params import SamplingParams
from gptjax.training.checkpoints.loading import load_for_inference

flags.DEFINE_string("workdir", None, "A run.", required=True)
flags.DEFINE_integer("prompts", 16, "Prompts of each kind.")
flags.DEFINE_integer("new", 64, "Tokens of each text.")
flags.DEFINE_list("proposed", ["0", "2", "4", "8"], "Tokens that are proposed at a time; the first is the base.")
flags.DEFINE_list("slots", ["1", "8"], "Texts that are written at the same time.")
flags.DEFINE_integer("repeats", 3, "Turns of each engine.")
FLAGS = flags.FLAGS
REPOSITORY = Path(__file__).parents[2]
WAYS = {"greedy": dict(temperature=0.0), "temperature 0.7": dict(temperature=0.7, top_p=0.95)}


def prompts() -> dict[str, list[str]]:
    """Texts to summarise and texts whose beginning is quoted, and short questions."""
    draw, text = np.random.default_rng(0), (REPOSITORY / "README.md").read_text()
    starts = draw.integers(0, len(text) - 500, FLAGS.prompts)
    documents = [f"{text[start : start + 400]}\n\nIn short, " for start in starts]
    quotes = [f"{text[start : start + 300]}\n\nTo quote this:\n\n{text[start : start + 40]}" for start in starts]
    words = [word.strip("`.,:*|()") for word in text.split()]
    asked = draw.choice(sorted({word for word in words if word.isalpha() and len(word) > 5}), FLAGS.prompts)
    return {"a summary": documents, "a quote": quotes, "a question": [f"What is {word}?\n" for word in asked]}


def turn(engine: Engine, texts: list[str], way: dict) -> dict:
    """All texts of a kind, submitted at the same moment."""
    before = engine.metrics.proposed_tokens, engine.metrics.accepted_tokens
    began, processor = time.perf_counter(), time.process_time()
    asked = [SamplingParams(max_tokens=FLAGS.new, seed=seed, **way) for seed in range(len(texts))]
    running = [engine.submit(text, params) for text, params in zip(texts, asked)]
    tokens = [request.result().outputs[0].token_ids for request in running]
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    count = engine.metrics.accepted_tokens - before[1]
    written = sum(request.usage.completion_tokens for request in running)
    return {
        "tokens": tokens,
        "speed": written / seconds,
        "cost": 1000 * processor / written,
        "per step": (written - len(texts)) / (written - len(texts) - count),  # without the first of each text
        "share": count / max(1, engine.metrics.proposed_tokens - before[0]),
    }


def main(argv: list[str]) -> None:
    del argv
    params, config, metadata = load_for_inference(FLAGS.workdir)
    own = tokenizer.load(FLAGS.workdir)
    generator = Generator(params, config, own, begin_id=metadata["fingerprint"].get("begin_id"), end_id=-1)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if "backend_compile" in event else None
    )
    titles = ("texts at a time", "prompt", "drawn", "proposed", "tokens/s", "speed", "processor ms per token")
    print("| " + " | ".join((*titles, "tokens per step (accepted)", "same texts")) + " |")
    print("|--:|---|---|--:|--:|--:|--:|--:|--:|")
    for slots in map(int, FLAGS.slots):
        engines = {
            count: Engine(generator, num_slots=slots, prefix_tokens=0, num_speculative_tokens=count)
            for count in map(int, FLAGS.proposed)
        }
        for engine in engines.values():
            engine.start()
        for kind, texts in prompts().items():
            for way, settings in WAYS.items():
                turns: dict[int, list[dict]] = {count: [] for count in engines}
                for engine in engines.values():
                    turn(engine, texts[:2], settings)
                compiled.clear()
                for _ in range(FLAGS.repeats):
                    for count, engine in engines.items():
                        turns[count].append(turn(engine, texts, settings))
                if compiled:
                    raise RuntimeError("programs were compiled while the engines were measured")
                report(slots, kind, way, turns)
        for engine in engines.values():
            engine.close()


def report(slots: int, kind: str, way: str, turns: dict[int, list[dict]]) -> None:
    base, *_ = turns.values()
    for count, measured in turns.items():
        same = [a == b for each in measured for a, b in zip(each["tokens"], base[0]["tokens"])]
        speeds = [each["speed"] for each in measured]
        ratios = [a["speed"] / b["speed"] for a, b in zip(measured, base)]
        cost = statistics.median(each["cost"] for each in measured)
        cells = (
            *(slots, kind, way, count),
            f"{statistics.median(speeds):.0f} ({min(speeds):.0f}–{max(speeds):.0f})",
            f"{statistics.median(ratios):.2f}",
            f"{cost:.2f}",
            f"{measured[0]['per step']:.2f} ({measured[0]['share']:.0%})",
            f"{sum(same)} of {len(same)}",
        )
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    app.run(main)
