"""The runs of the scaling laws: models of many sizes, trained for the same FLOPs at each of several budgets.

  python -m gptjax.sweep experiments/scaling_laws/sweep.py:learning_rate --workdir=runs/rate --set=data.path=DATA
  python -m gptjax.sweep experiments/scaling_laws/sweep.py:isoflop --workdir=runs/isoflop --set=data.path=DATA
  python -m gptjax.sweep experiments/scaling_laws/sweep.py:held_out --workdir=runs/held_out --set=data.path=DATA

`isoflop_short` is `isoflop` at the two smaller budgets. The shape is that of configs/depth.py at half the width: a
layer per 32 of width, heads 16 wide; learning rates and weight decay follow from the width by that file's rules.
"""

import math

from gptjax.config import ConfigError
from gptjax.sweeping import Sweep, named

SEQUENCE_LENGTH, BATCH_SIZE, VOCABULARY = 128, 8, 265
WIDTHS = {  # by budget in FLOPs
    1.25e11: (16, 32, 48, 64, 80),
    5e11: (16, 32, 48, 64, 80, 96),
    2e12: (32, 48, 64, 80, 96, 128),
}
HELD_OUT = 8e12
RATES = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the rates of configs/depth.py
BEST_RATE = 2.0  # of those, found by `learning_rate` at each of its depths
RATE_WIDTHS, RATE_STEPS = (32, 64, 128), 256  # depths 1, 2 and 4


def shape(width: int, rate: float = BEST_RATE) -> dict:
    """The settings that follow from the width. rate: multiplies every learning rate."""
    depth = max(1, width // 32)
    return {
        "model.num_layers": depth,
        "model.width": width,
        "model.num_heads": width // 16,
        "optimizer.learning_rate": rate * 3e-3 * math.sqrt(768 / width),
        "optimizer.muon_learning_rate": rate * 0.02,
        "optimizer.weight_decay": min(0.1 * 12 / depth, 0.5),
    }


def flops_per_token(width: int) -> float:
    """Forward and backward, attention counted causally, as `gptjax.sweep` does: norms have no parameters here."""
    depth = max(1, width // 32)
    return 6.0 * (12 * depth * width**2 + VOCABULARY * width) + 6.0 * depth * width * SEQUENCE_LENGTH


def run(width: int, flops: float) -> dict:
    """The settings of a model of this width that trains for so many FLOPs."""
    return shape(width) | {"training.duration": f"{round(flops / flops_per_token(width))} tokens"}


COMMON = {
    "data.sequence_length": SEQUENCE_LENGTH,
    "training.batch_size": BATCH_SIZE,
    "training.gradient_accumulation_steps": 1,
    "training.loss_chunk": 0,
    "checkpoint.every": "100%",
    "checkpoint.keep_best": 0,
    "evaluation.every": "20%",
    "evaluation.tokens": 32_768,
    "evaluation.sample_every": "",
    "logging.every": "2%",
    "logging.tensorboard": False,
    "logging.plots": False,
}


def get_sweep(arg: str) -> Sweep:
    form, _, width = arg.partition(",")
    if form == "learning_rate":
        steps = {"training.duration": f"{RATE_STEPS} steps"}
        points = {f"depth={w // 32},rate={r:g}": shape(w, r) | steps for w in RATE_WIDTHS for r in RATES}
    elif form in ("isoflop", "isoflop_short"):
        budgets = list(WIDTHS)[: 2 if form == "isoflop_short" else None]
        points = {f"flops={c:.3g},width={w}": run(w, c) for c in budgets for w in WIDTHS[c]}
    elif form == "held_out" and width.isdigit():
        points = {f"flops={HELD_OUT:.3g},width={width}": run(int(width), HELD_OUT)}
    else:
        raise ConfigError(f"sweep.py:{arg}: expected learning_rate, isoflop, isoflop_short or held_out,WIDTH")
    return Sweep("configs/depth.py:1", named(points), COMMON)
