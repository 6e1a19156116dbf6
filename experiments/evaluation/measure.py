"""Compares the speed of a multiple-choice task's log-likelihoods with lm_eval's own `hf` model of the same weights.

python experiments/evaluation/measure.py --data=FOLDER_WITH_hellaswag --tokenizer=FOLDER_OR_FILE [--models=6x384,12x768]

The sides take turns in one process, for one model after the other: all choices by `LogLikelihoods`, one forward pass
per choice, and lm_eval's `HFLM` around a transformers Llama in batches of several sizes. gptjax takes its turn before
and after each part of another side, since the speed of a machine changes within an hour. All get the same tokens, so
tokenization is not timed; programs are compiled before anything is timed. For each model it also prints how many
choices per second the matrix products alone would allow. Needs PyTorch, transformers and lm_eval besides gptjax.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import lm_eval
import numpy as np
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models

import gptjax.tokenizer
from gptjax import config as configs
from gptjax.evaluation.loglikelihood import Continued, LogLikelihoods
from gptjax.evaluation.tasks import find_tasks
from gptjax.inference.decode import decoding_params
from gptjax.inference.devices import divide_cpu
from gptjax.model.families import family_of
from gptjax.model.family import Family
from gptjax.model.parameters import count_parameters
from gptjax.model.resolve import resolve_model

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from transformers_families import state_of

CONTEXT = 1024
SHAPE = 32  # a single choice is padded to a multiple of so many tokens, since each length is a program to compile
Side = Callable[[Sequence[Continued]], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the task's files")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a prepared folder, or a tokenizer's file")
    parser.add_argument("--task", default="hellaswag")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--parts", type=int, default=1, help="parts in which the other sides take each of their turns")
    parser.add_argument("--models", default="6x384", help="layers x width of each model")
    parser.add_argument("--batches", default="1,8", help="lm_eval's batch sizes, in choices; empty: without it")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.csv"))
    arguments = parser.parse_args()
    divide_cpu()  # as the command `evaluate` does

    tokenizer = gptjax.tokenizer.load(arguments.tokenizer)
    (task,), _ = find_tasks(arguments.task, [arguments.data], limit=arguments.items)
    asked = [request for item in task.items for request in task.requests(item)]
    requests = []
    for request in asked:
        context = [tokenizer.eos_id, *tokenizer.encode(request.context)]
        requests.append(
            Continued([*map(int, context), *map(int, tokenizer.encode(request.continuation))], len(context))
        )
    rows = []
    for shape in arguments.models.split(","):
        layers, width = map(int, shape.split("x"))
        family, params, theirs = models_of(layers, width, tokenizer.vocab_size)
        parameters = f"{count_parameters(family.declarations).total / 1e6:.1f} M"
        print_limit(family, requests)
        batches = [int(batch) for batch in arguments.batches.split(",") if batch]
        sides = sides_of(family, params, theirs, batches)
        for measured in compared(sides, requests, arguments.turns, arguments.parts):
            about = dict(task=arguments.task, items=len(task.items), model=shape, parameters=parameters)
            rows.append(about | dict(vocabulary=tokenizer.vocab_size) | measured)
            print(rows[-1])
    read = sum(len(request.tokens) - 1 for request in requests)
    print(
        f"{read} tokens, jax {jax.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, lm_eval {lm_eval.__version__}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end"
    )
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def sides_of(family: Family, params: dict, theirs: torch.nn.Module, batches: list[int]) -> dict[str, Side]:
    """By name, what computes the log-likelihoods of requests, in their order."""
    scorer = LogLikelihoods(family, decoding_params(family, params, "float32"))

    def together(requests: Sequence[Continued]) -> list[float]:
        return [score.nats for _, score in sorted(scorer.score(requests), key=lambda each: each[0])]

    @jax.jit
    def forward(params: dict, tokens: jax.Array, targets: jax.Array) -> jax.Array:
        logits = family.module().apply({"params": params}, tokens[None])[0]
        return jax.numpy.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=-1)[:, 0]

    def one_at_a_time(requests: Sequence[Continued]) -> list[float]:
        found = []
        for request in requests:
            length = len(request.tokens) - 1
            tokens = np.zeros(padded(request) + 1, np.int32)
            tokens[: length + 1] = request.tokens
            nats = np.asarray(forward(params, tokens[:-1], tokens[1:]))
            found.append(float(nats[request.first - 1 : length].sum(dtype=np.float64)))
        return found

    def of_lm_eval(batch: int) -> Side:
        blank = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, "x")))
        model = HFLM(theirs, tokenizer=blank, batch_size=batch, max_length=CONTEXT, device="cpu")

        def score(requests: Sequence[Continued]) -> list[float]:
            pairs = [(("", ""), [*each.tokens[: each.first]], [*each.tokens[each.first :]]) for each in requests]
            return [nats for nats, _ in model._loglikelihood_tokens(pairs, disable_tqdm=True)]

        return score

    sides: dict[str, Side] = {"gptjax": together, "one choice at a time": one_at_a_time}
    sides |= {f"lm_eval hf, batch {batch}": of_lm_eval(batch) for batch in batches}
    return sides


def padded(request: Continued) -> int:
    """The tokens that one forward pass reads for the request."""
    return -(-(len(request.tokens) - 1) // SHAPE) * SHAPE


def print_limit(family: Family, requests: list[Continued]) -> None:
    """The speed if the products with the model's matrices took all the time, at the speed of a product of 1,024 rows,
    with each context read once."""
    config = family.config
    x, weight = jax.numpy.ones((1024, config.width)), jax.numpy.ones((config.width, config.feedforward_width))
    multiply = jax.jit(jax.numpy.matmul)
    multiply(x, weight).block_until_ready()
    seconds = []  # of the processor, which other programs affect little
    for _ in range(6):
        before = time.process_time()
        for _ in range(20):
            made = multiply(x, weight)
        made.block_until_ready()
        seconds.append((time.process_time() - before) / 20)
    speed = 2 * x.shape[0] * weight.size / min(seconds)
    counts = count_parameters(family.declarations)
    head = config.width * config.vocab_size
    contexts = {tuple(request.tokens[: request.first]) for request in requests}
    scored = sum(len(request.tokens) - request.first for request in requests)
    read = sum(map(len, contexts)) + scored - len(requests)
    needed = 2 * (read * (counts.multiplied - head) + scored * head) / len(requests)
    print(
        f"{config.num_layers} x {config.width}: {read} tokens with each context once, {needed / 1e9:.2f} GFLOP per "
        f"choice in products with matrices; a product of 1,024 rows: {speed / 1e9:.0f} GFLOP per processor second; on "
        f"{os.cpu_count()} cores at most {os.cpu_count() * speed / needed:.0f} choices per second"
    )


def compared(sides: dict[str, Side], requests: Sequence[Continued], turns: int, parts: int) -> list[dict]:
    """A row per side: its choices per second, its processor seconds, and its log-likelihoods beside those of the first
    side."""
    ours, *others = sides
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    used: dict[str, list[float]] = {name: [] for name in sides}
    nats = {}

    def take_turn(name: str, parts: int) -> None:
        """Scores all requests; gptjax takes a turn after each part of them, except the last."""
        seconds[name].append(0.0)
        used[name].append(0.0)
        found: list[float] = []
        step = -(-len(requests) // parts)
        for start in range(0, len(requests), step):
            if start:
                take_turn(ours, 1)
            began, before = time.perf_counter(), time.process_time()
            found += sides[name](requests[start : start + step])
            seconds[name][-1] += time.perf_counter() - began
            used[name][-1] += time.process_time() - before
        nats[name] = np.array(found)
        print(f"{name}: {len(requests) / seconds[name][-1]:.1f} choices per second", flush=True)

    sides[ours](requests)  # compiles; a program of the other sides depends on the length of its request alone
    for name in others:
        sides[name](list({padded(request): request for request in requests}.values()))
    for _ in range(turns):
        for name in others:
            take_turn(ours, 1)
            take_turn(name, parts)
    take_turn(ours, 1)
    return [
        dict(
            side=name,
            choices_per_second=round(len(requests) / statistics.median(each), 1),
            slowest=round(len(requests) / max(each), 1),
            fastest=round(len(requests) / min(each), 1),
            processor_seconds_per_100_choices=round(100 * statistics.median(used[name]) / len(requests), 3),
            gptjax_is_so_many_times_faster=round(statistics.median(each) / statistics.median(seconds[ours]), 2),
            largest_difference_in_nats=f"{np.abs(nats[name] - nats[ours]).max():.1e}",
        )
        for name, each in seconds.items()
    ]


def models_of(layers: int, width: int, vocab_size: int) -> tuple:
    """Our family and random parameters, and transformers' Llama with the same ones."""
    section = configs.default().model
    section.update(dict(num_layers=layers, width=width, num_heads=width // 64, max_positions=CONTEXT, dtype="float32"))
    section.tied_embeddings = False
    config = resolve_model(section, platform="cpu", vocab_size=vocab_size, sequence_length=CONTEXT)
    family = family_of(config)
    params = family.init_params(jax.random.key(0))
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            intermediate_size=config.feedforward_width,
            vocab_size=vocab_size,
            max_position_embeddings=CONTEXT,
            rms_norm_eps=config.norm_epsilon,
            rope_parameters=dict(rope_type="default", rope_theta=config.rope_theta),
            tie_word_embeddings=False,
        )
    )
    state = state_of("llama", config, jax.device_get(params))
    given = {name: torch.tensor(np.ascontiguousarray(array)) for name, array in state.items()}
    theirs.load_state_dict(given)
    return family, params, theirs.eval()


if __name__ == "__main__":
    main()
