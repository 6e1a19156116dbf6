"""The slices to measure on one GPU, the most valuable first; each slice runs in its own process.

A training slice names settings in the order of their likely speed; the first that fits into the memory is measured.
Rows are sequences per step.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Slice:
    """part: the measure_*.py that runs it. options: the arguments of its `measure`.

    seconds: its expected time, start included; it is not started if less is left. limit: seconds after which it counts
    as hung.
    """

    name: str
    part: str
    seconds: int
    limit: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


NO_TRITON = "--xla_gpu_enable_triton_gemm=false"
NO_GRAPHS = "--xla_gpu_enable_command_buffer="
LLAMA_WIDE = dict(layers="unroll", remat="none")
LLAMA_NARROW = dict(layers="scan", remat="dots")

#        config, sequence length, seconds, settings of gptjax, rows of PyTorch
SHAPES: dict[str, tuple[str, int, int, tuple[dict, ...], tuple[int, ...]]] = {
    "124m@1024": ("gpt2:124m", 1024, 75, (dict(rows=64), dict(rows=32)), (64, 32)),
    "1b@2048": ("llama:1b", 2048, 90, (LLAMA_WIDE | dict(rows=16), LLAMA_WIDE | dict(rows=8)), (16, 8)),
    "350m@1024": ("gpt2:350m", 1024, 100, (dict(rows=32), dict(rows=16)), (32, 16)),
    "3b@2048": ("llama:3b", 2048, 100, (LLAMA_WIDE | dict(rows=8), LLAMA_NARROW | dict(rows=4),
                                        dict(layers="scan", remat="full", rows=4)), (8, 4, 2)),
    "124m@2048": ("gpt2:124m", 2048, 75, (dict(rows=32), dict(rows=16)), (32, 16)),
    "1b@1024": ("llama:1b", 1024, 90, (LLAMA_WIDE | dict(rows=32), LLAMA_WIDE | dict(rows=16)), (32, 16)),
    "350m@2048": ("gpt2:350m", 2048, 100, (dict(rows=16), dict(rows=8)), (16, 8)),
    "3b@1024": ("llama:3b", 1024, 100, (LLAMA_WIDE | dict(rows=16), LLAMA_NARROW | dict(rows=8),
                                        dict(layers="scan", remat="full", rows=8)), (16, 8, 4)),
}  # fmt: skip

# Variants that might be faster than a shape's first settings, with one change each.
CHANGES: dict[str, tuple[dict, ...]] = {
    "124m@1024": (dict(chunk=0), dict(rows=128), dict(xla_flags=NO_TRITON), dict(xla_flags=NO_GRAPHS)),
    "1b@2048": (dict(xla_flags=NO_TRITON), LLAMA_NARROW, dict(chunk=0), dict(rows=32)),
}


def training(shape: str, side: str = "gptjax", change: dict | None = None) -> Slice:
    config, length, seconds, settings, torch_rows = SHAPES[shape]
    if side == "torch":
        settings = tuple(dict(rows=rows) for rows in torch_rows)
    if change:
        settings = (settings[0] | change,)
    changed = "".join(f", {name} {value}" for name, value in (change or {}).items())
    options = dict(config=config, length=length, side=side, settings=settings)
    return Slice(f"training {shape}, {side}{changed}", "training", seconds, 240, options)


def decoding(config: str, batches: tuple[int, ...], seconds: int) -> Slice:
    return Slice(f"decoding {config}", "decoding", seconds, 240, dict(config=config, batches=batches))


SLICES: tuple[Slice, ...] = (
    Slice("checks", "checks", 120, 300),
    Slice("ceilings", "ceilings", 40, 120),
    training("124m@1024"),
    training("124m@1024", "torch"),
    training("1b@2048"),
    training("1b@2048", "torch"),
    Slice("attention", "attention", 100, 240),
    decoding("llama:1b", (1, 32, 256), 110),
    Slice("shakespeare", "shakespeare", 110, 240),
    training("350m@1024"),
    training("350m@1024", "torch"),
    training("3b@2048"),
    training("3b@2048", "torch"),
    Slice("fp8", "fp8", 40, 120),
    decoding("gpt2:124m", (1, 32, 256), 90),
    *(
        training(shape, side)
        for shape in ("124m@2048", "1b@1024", "350m@2048", "3b@1024")
        for side in ("gptjax", "torch")
    ),
    *(training(shape, change=change) for shape, changes in CHANGES.items() for change in changes),
)  # fmt: skip

# For a machine without a GPU: every part and both sides, on models of one small layer. The last one fails on purpose.
SMALL = dict(num_layers=1, width=64, num_heads=4, num_kv_heads=2, head_width=16, feedforward_width=128, vocab_size=512)
REHEARSAL: tuple[Slice, ...] = (
    Slice("checks", "checks", 1, 120, dict(only="causal-xla and 64")),
    Slice("ceilings", "ceilings", 1, 60, dict(sizes=(64,), copied=2**16)),
    *(
        Slice(f"training {config}, {side}", "training", 1, 240, dict(
            config=config, length=32, side=side, settings=(dict(rows=4) | setting,), model=SMALL))
        for config, side, setting in (
            ("gpt2:124m", "gptjax", {}), ("llama:1b", "gptjax", LLAMA_NARROW), ("gpt2:124m", "torch", {}))
    ),
    Slice("attention", "attention", 1, 60, dict(shapes=((2, 64, 4, 2, 16),), window=16)),
    Slice("decoding", "decoding", 1, 60, dict(config="llama:1b", batches=(2,), prompt=8, new=8, model=SMALL)),
    Slice("shakespeare", "shakespeare", 1, 100, dict(text="written", settings=(
        "model.num_layers=1", "model.width=32", "model.num_heads=2", "training.duration=20 steps",
        "data.sequence_length=32", "training.batch_size=4", "schedule.warmup=2 steps",
        "evaluation.sample_every=", "logging.plots=False", "logging.tensorboard=False"))),
    Slice("fp8", "fp8", 1, 60, dict(shapes=((32, 64, 128),))),
    Slice("broken", "training", 1, 60, dict(config="gpt2:124m", length=32, side="gptjax", settings=(dict(rows=-1),))),
)  # fmt: skip
