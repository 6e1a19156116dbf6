"""A sweep: which batch, and which learning rate with it, gives the lowest loss on a million tokens?

  python -m gptjax.sweep experiments/plan/batch.py --workdir=runs/batch --set=data.path=DATA

The model is that of configs/depth.py:2, with windows of 256, so that a batch can be small.
"""

from gptjax.config.user_code import load_config
from gptjax.sweeping import Sweep, named

CONFIG, TOKENS, LENGTH = "configs/depth.py:2", 1_000_000, 256
ROWS, FACTORS = (4, 16, 64), (0.09, 0.18, 0.35, 0.7, 1.4)  # of a batch; of the config's learning rates
COMMON = {
    "training.duration": f"{TOKENS} tokens",
    "data.sequence_length": LENGTH,
    "training.gradient_accumulation_steps": 1,
    "training.loss_chunk": 0,
    "checkpoint.every": "100%",
    "checkpoint.keep_best": 0,
    "evaluation.every": "50%",
    "evaluation.tokens": 131_072,
    "logging.every": "5%",
    "logging.tensorboard": False,
    "logging.plots": False,
}


def get_sweep() -> Sweep:
    rates = load_config(CONFIG).optimizer
    points = {
        f"rows={rows},rate={factor}": {
            "training.batch_size": rows,
            "optimizer.learning_rate": factor * rates.learning_rate,
            "optimizer.muon_learning_rate": factor * rates.muon_learning_rate,
        }
        for rows in ROWS
        for factor in FACTORS
    }
    return Sweep(CONFIG, named(points), COMMON)
