"""Trains Hugging Face's GPT-2 with nanoGPT's recipe: python experiments/quality/peer.py --data=data/shakespeare_char

It takes the sizes of nanoGPT's CPU setting, its batches (windows at random places), learning rate, AdamW, clipping and
initialization, on `transformers.GPT2LMHeadModel` (which has biases, as GPT-2; nanoGPT leaves them out). Prints one JSON
line per seed: the losses that judge.py finds, and the seconds of the steps alone.
"""

from __future__ import annotations

import json
import math
import time

import numpy as np
import torch
import transformers
from absl import app, flags
from judge import characters, judge

DATA = flags.DEFINE_string("data", "data/shakespeare_char", "A prepared folder.")
STEPS = flags.DEFINE_integer("steps", 2000, "Optimizer steps.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds; one run each.")
COMPILE = flags.DEFINE_bool("compile", False, "Use torch.compile; the time of compilation is reported separately.")
THREADS = flags.DEFINE_integer("threads", torch.get_num_threads(), "Of PyTorch.")

LENGTH, BATCH, WIDTH, LAYERS, HEADS = 64, 12, 128, 4, 4
RATE, FLOOR, WARMUP = 1e-3, 1e-4, 100


def learning_rate(step: int) -> float:
    if step < WARMUP:
        return RATE * (step + 1) / (WARMUP + 1)
    progress = (step - WARMUP) / (STEPS.value - WARMUP)
    return FLOOR + 0.5 * (1 + math.cos(math.pi * progress)) * (RATE - FLOOR)


def make_model(vocab_size: int) -> transformers.GPT2LMHeadModel:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocab_size,
            n_positions=LENGTH,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
            **dict.fromkeys(("bos_token_id", "eos_token_id"), 0),
            use_cache=False,
        )
    )


def train(text: np.ndarray, vocab_size: int, seed: int) -> tuple[torch.nn.Module, dict[str, float]]:
    """Returns a trained model, the seconds of the first step (with compilation) and of all others."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = make_model(vocab_size)
    forward = torch.compile(model) if COMPILE.value else model
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), fused=True)

    clock = [time.perf_counter()]
    for step in range(STEPS.value):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        starts = rng.integers(0, len(text) - LENGTH, BATCH)
        windows = torch.from_numpy(text[starts[:, None] + np.arange(LENGTH + 1)])
        logits = forward(windows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step in (0, STEPS.value - 1):
            clock.append(time.perf_counter())
    return model, {"first_step_seconds": clock[1] - clock[0], "seconds": clock[-1] - clock[1]}


def main(_) -> None:
    torch.set_num_threads(THREADS.value)
    text, _ = characters(DATA.value, "train")
    held_out, _ = characters(DATA.value, "validation")
    vocab_size = int(text.max()) + 1
    for seed in map(int, SEEDS.value):
        model, times = train(text, vocab_size, seed)

        @torch.no_grad()
        def nll(inputs: np.ndarray, targets: np.ndarray, model=model) -> np.ndarray:
            logits = model(torch.from_numpy(inputs)).logits
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.from_numpy(targets).flatten(), reduction="none"
            )
            return losses.view(targets.shape).numpy()

        facts = {"seed": seed, "steps": STEPS.value, "compile": COMPILE.value, "threads": THREADS.value}
        print(json.dumps({**facts, **judge(nll, held_out, LENGTH), **times}), flush=True)


if __name__ == "__main__":
    app.run(main)
