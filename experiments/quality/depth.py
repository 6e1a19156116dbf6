"""Compares depths 2, 4 and 6 at equal FLOPs.

  python -m gptjax.sweep experiments/quality/depth.py:data/books --workdir=runs/books

Every depth is that of configs/depth.py, which derives all else from it, except for what a budget of minutes on a CPU
requires: a short context, a small batch, and as many tokens as the FLOPs allow.

    FLOPs per token = 6 · (12 L D² + V D) + 6 L D T       with D = 64 L, V = 2,048, T = 128
    depth 2: 4.1 M per token, 1.2 M tokens     depth 4: 22.8 M, 219 k tokens     depth 6: 70.3 M, 71 k tokens
"""

from gptjax.config import flatten
from gptjax.config.user_code import load_config
from gptjax.sweeping import Sweep, named

FLOPS = 5e12  # per run
VOCABULARY = 2048
SEQUENCE_LENGTH = 128
BATCH_SIZE = 8
DEPTHS = (2, 4, 6)
CONFIG = "configs/depth.py"

COMMON = {
    "data.sequence_length": SEQUENCE_LENGTH,
    "training.batch_size": BATCH_SIZE,
    "training.gradient_accumulation_steps": 1,
    "training.loss_chunk": 0,
    "checkpoint.every": "100%",
    "checkpoint.keep_best": 0,
    "evaluation.every": "10%",
    "evaluation.tokens": 20_480,
    "logging.every": "1%",
}


def get_sweep(data: str) -> Sweep:
    base = flatten(load_config(f"{CONFIG}:{DEPTHS[0]}"))
    points = {}
    for depth in DEPTHS:
        derived = flatten(load_config(f"{CONFIG}:{depth}"))
        own = {name: value for name, value in derived.items() if value != base[name] and name not in COMMON}
        points[f"depth={depth}"] = {**own, "training.duration": f"{num_tokens(depth)} tokens"}
    settings = {**COMMON, "data.path": data}
    return Sweep(f"{CONFIG}:{DEPTHS[0]}", named(points), settings, metric="validation/bits_per_byte")


def num_tokens(depth: int) -> int:
    return round(FLOPS / flops_per_token(depth))


def flops_per_token(depth: int) -> int:
    """Returns the training FLOPs per token; attention is counted causally."""
    width = 64 * depth
    products = 12 * depth * width**2 + VOCABULARY * width
    return 6 * products + 6 * depth * width * SEQUENCE_LENGTH
