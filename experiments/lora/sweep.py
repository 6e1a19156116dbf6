"""Adapters of several ranks beside full fine-tuning, each with its own best learning rate.

python -m gptjax.sweep experiments/lora/sweep.py:tune --workdir=runs/lora/tune --set=data.path=data/shakespeare \\
    --set=training.init_from=runs/base
python -m gptjax.sweep experiments/lora/sweep.py --workdir=runs/lora/compare …           the best rates, three seeds

The base is a run of this model (4 layers, width 256) on other text; the data has its tokenizer (--tokenizer=data/base).
"""

from gptjax.sweeping import Sweep, chain, grid, named, over, seeds

RATE = "optimizer.learning_rate"
FULL = {"full": {"model.lora_rank": 0}}
# alpha = 2 r at every rank, so that an adapter's output has the same factor
RANKS = {f"rank {rank}": {"model.lora_rank": rank, "model.lora_alpha": 2.0 * rank} for rank in (1, 4, 16, 64)}
BEST = {"full": 0.0003, "rank 1": 0.01, "rank 4": 0.01, "rank 16": 0.003, "rank 64": 0.003}

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


def get_sweep(part: str = "compare"):
    ends = dict.fromkeys(("training.duration", "evaluation.every", "checkpoint.every"), "100 steps")
    if part == "tune":
        full = grid(named(FULL), over(RATE, [0.0001, 0.0003, 0.001, 0.003]))
        adapters = grid(named(RANKS), over(RATE, [0.001, 0.003, 0.01]))
        points = chain(full, adapters)
    else:
        points = grid(named({name: fields | {RATE: BEST[name]} for name, fields in (FULL | RANKS).items()}), seeds(3))
    return Sweep("configs/text_tiny.py", points, SETTINGS | ends)
