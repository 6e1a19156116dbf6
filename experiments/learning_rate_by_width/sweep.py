"""Does AdamW's best learning rate move with the width? Widths and rates a factor of two apart, two seeds.

Everything else is the same: two layers, 200 steps of 1,024 tokens, a cosine schedule. Heads are 24 wide, so a wider
model has more of them.

  python -m gptjax.sweep experiments/learning_rate_by_width/sweep.py --workdir=runs/learning_rate_by_width --jobs=2
"""

from gptjax.sweeping import Sweep, grid, named, over, seeds

WIDTHS = (24, 48, 96)
HEAD_WIDTH = 24
LEARNING_RATES = [0.002, 0.004, 0.008, 0.016, 0.032, 0.064]


def get_sweep():
    widths = named({f"width={w}": {"model.width": w, "model.num_heads": w // HEAD_WIDTH} for w in WIDTHS})
    return Sweep(
        config="configs/stdlib_tiny.py",
        points=grid(widths, over("optimizer.learning_rate", LEARNING_RATES), seeds(2)),
        settings={
            "model.num_layers": 2,
            "optimizer.name": "adamw",
            "schedule.name": "cosine",
            "schedule.warmup": "20 steps",
            "training.duration": "200 steps",
            "training.batch_size": 8,
            "evaluation.every": "100 steps",
            "evaluation.tokens": 20_480,
            "evaluation.sample_every": "",
            "checkpoint.every": "200 steps",
            "checkpoint.keep_latest": 1,
            "logging.tensorboard": False,
            "logging.plots": False,
        },
        x="optimizer.learning_rate",
    )
