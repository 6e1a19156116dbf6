"""One side of the comparison, in a separate process: python training_sides.py (gptjax | torch) SHAPE STYLE DTYPE

Compiles, warms up, prints a line of JSON with its facts, and then, for each number that it reads, takes that many
training steps and prints their seconds and the last loss.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable

from training_shapes import (
    BETA1,
    BETA2,
    EPSILON,
    GRADIENT_CLIP,
    LEARNING_RATE,
    SHAPES,
    WEIGHT_DECAY,
    Shape,
    batches,
)

Steps = Callable[[int], float]  # takes that many steps, waits for them, returns the last loss


def gptjax_side(shape: Shape, style: str, dtype: str) -> tuple[Steps, dict]:
    """The trainer's compiled step, used as in training: batches are prefetched, metrics are read one call late."""
    import jax
    import numpy as np

    from gptjax.config import default, validate
    from gptjax.data.facts import DataFacts
    from gptjax.parallel.distributed import local_rows, put_batch
    from gptjax.planning import plan

    config = default()
    config.model.update(
        vocab_size=shape.vocab_size, num_layers=shape.num_layers, num_heads=shape.num_heads, width=shape.width
    )
    config.model.dtype = dtype
    if style == "gpt2":
        config.model.update(feedforward="gelu", norm="layernorm", position="learned", bias="all")
    config.data.sequence_length = shape.sequence_length
    config.training.update(batch_size=shape.batch_size, duration="1000000 steps")
    config.optimizer.update(
        learning_rate=LEARNING_RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, weight_decay=WEIGHT_DECAY
    )
    config.optimizer.gradient_clip = GRADIENT_CLIP
    config.schedule.update(name="constant", warmup="0 steps")
    validate(config)
    made = plan(config, DataFacts(shape.vocab_size), jax.devices())
    assert made.config.model.feedforward_width == shape.feedforward_width(style)

    mesh = made.mesh
    jax.set_mesh(mesh)
    train_step = made.trainer.compile_train_step(made.abstract_batch)
    state = made.trainer.init()
    rows = local_rows(mesh, shape.batch_size, 1)
    weights = np.ones((shape.batch_size, shape.sequence_length), np.float32)
    source = itertools.cycle(batches(shape))

    def steps(count: int) -> float:
        nonlocal state
        pending, loss = None, float("nan")
        for _ in range(count):
            tokens, targets = next(source)
            batch = {"tokens": tokens, "targets": targets, "weights": weights}
            state, metrics = train_step(state, put_batch(mesh, batch, rows, shape.batch_size, 1))
            if pending is not None:
                loss = jax.device_get(pending)["train/loss"].item()
            pending = metrics
        jax.block_until_ready(state)
        return jax.device_get(pending)["train/loss"].item() if count else loss

    return steps, {
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "parameters": made.parameters.total,
        "flops_per_token": made.flops_per_token["causal"],
        "threads": os.cpu_count(),
    }


def torch_side(shape: Shape, style: str, dtype: str) -> tuple[Steps, dict]:
    """transformers' model under torch.compile, with sdpa attention, fused AdamW and clipping; bfloat16 by autocast."""
    import torch
    import transformers

    common = dict(
        vocab_size=shape.vocab_size,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
    )
    if style == "gpt2":
        config = transformers.GPT2Config(
            n_positions=shape.sequence_length,
            n_embd=shape.width,
            n_layer=shape.num_layers,
            n_head=shape.num_heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            max_position_embeddings=shape.sequence_length,
            hidden_size=shape.width,
            intermediate_size=shape.feedforward_width(style),
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            **common,
        )
        model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=(BETA1, BETA2),
        eps=EPSILON,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    compiled = torch.compile(model.train())
    source = itertools.cycle(
        [(torch.from_numpy(tokens).long(), torch.from_numpy(targets).long()) for tokens, targets in batches(shape)]
    )

    def steps(count: int) -> float:
        loss = torch.tensor(float("nan"))
        for _ in range(count):
            tokens, targets = next(source)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = compiled(input_ids=tokens, labels=targets, shift_labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return steps, {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
    }


SIDES = {"gptjax": gptjax_side, "torch": torch_side}


def main(side: str, shape: str, style: str, dtype: str) -> None:
    started = time.perf_counter()
    if side == "gptjax":
        from gptjax.command_line.kept_memory import keep_freed_memory

        keep_freed_memory()  # as `python -m gptjax.train` does
    steps, facts = SIDES[side](SHAPES[shape], style, dtype)
    first_loss = steps(1)
    facts |= {"seconds_to_first_step": time.perf_counter() - started, "first_loss": first_loss}
    steps(1)
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        loss = steps(int(line))
        print(json.dumps({"seconds": time.perf_counter() - started, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
