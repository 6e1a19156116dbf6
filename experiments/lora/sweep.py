"""Adapters of several ranks beside full fine-tuning, each at several learning rates.

python -m gptjax.sweep experiments/lora/sweep.py --workdir=runs/lora --set=data.path=data/shakespeare \\
    --set=training.init_from=runs/base

The base is a run of this model (4 layers, width 256) on other text; the data has its tokenizer (--tokenizer=data/base).
`sweep.py:seeds` has three seeds of each row at one learning rate, the best of the first sweep. Each run takes 60 steps.
"""

from gptjax.sweeping import Sweep, chain, grid, named, over, seeds

RATE = "optimizer.learning_rate"
FULL = {"full": {"model.lora_rank": 0}}
# alpha = 2 r at every rank, so that an adapter's output has the same factor
RANKS = {f"rank {rank}": {"model.lora_rank": rank, "model.lora_alpha": 2.0 * rank} for rank in (1, 8, 64)}

BEST = {"full": 0.001, "rank 1": 0.03, "rank 8": 0.01, "rank 64": 0.003}
STEPS = 60

SETTINGS = {
    "model.num_layers": 4,
    "model.width": 256,
    "model.num_heads": 4,
    "model.dropout": 0.0,
    "data.sequence_length": 256,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.0,
    "schedule.name": "linear",
    "training.batch_size": 8,
    "evaluation.tokens": 32_768,
    "evaluation.sample_every": "",
    "checkpoint.keep_latest": 1,
    "checkpoint.keep_best": 0,
    "logging.tensorboard": False,
    "logging.plots": False,
}


def get_sweep(arg: str = "rates"):
    if arg == "rates":
        full = grid(named(FULL), over(RATE, [0.0003, 0.001, 0.003]))
        points = chain(full, grid(named(RANKS), over(RATE, [0.003, 0.01, 0.03])))
    elif arg == "seeds":
        rows = {name: {**settings, RATE: BEST[name]} for name, settings in (FULL | RANKS).items()}
        points = grid(seeds(3), named(rows))
    else:
        raise ValueError(f"{arg}: must be rates or seeds")
    ends_at = dict.fromkeys(("training.duration", "evaluation.every", "checkpoint.every"), f"{STEPS} steps")
    return Sweep("configs/text_tiny.py", points, SETTINGS | ends_at)
