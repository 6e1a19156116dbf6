"""Is Muon better than AdamW in the same number of steps, each at its own best learning rate? Five seeds each.

First the learning rates, with the same number of trials for each optimizer and a seed that the comparison does not use;
then the comparison at the best rates, which are in ADAMW and MUON below.

  python -m gptjax.sweep experiments/adamw_against_muon/sweep.py:tune --workdir=runs/optimizers/tune --jobs=2
  python -m gptjax.sweep experiments/adamw_against_muon/sweep.py --workdir=runs/optimizers/compare --jobs=2
"""

from gptjax.config import ConfigError
from gptjax.sweeping import Sweep, chain, grid, named, over, seeds

LEARNING_RATE, MUON_LEARNING_RATE = "optimizer.learning_rate", "optimizer.muon_learning_rate"
ADAMW = {"optimizer.name": "adamw", LEARNING_RATE: 0.002}
MUON = {"optimizer.name": "muon", LEARNING_RATE: 0.016, MUON_LEARNING_RATE: 0.02}

SETTINGS = {
    "model.num_layers": 2,
    "training.duration": "200 steps",
    "training.batch_size": 8,
    "evaluation.every": "50 steps",
    "evaluation.tokens": 40_960,
    "evaluation.sample_every": "",
    "checkpoint.every": "200 steps",
    "checkpoint.keep_latest": 1,
    "logging.tensorboard": False,
    "logging.plots": False,
}


def get_sweep(arg: str = "compare"):
    if arg == "tune":
        adamw = grid(
            named({"adamw": {"optimizer.name": "adamw"}}),
            over(LEARNING_RATE, [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016]),
        )
        muon = grid(
            named({"muon": {"optimizer.name": "muon"}}),
            over(MUON_LEARNING_RATE, [0.02, 0.04, 0.08]),
            over(LEARNING_RATE, [0.008, 0.016]),
        )
        points = grid(chain(adamw, muon), seeds(1, first=100))
    elif arg == "compare":
        points = grid(named({"adamw": ADAMW, "muon": MUON}), seeds(5))
    else:
        raise ConfigError(f"sweep.py:{arg}: expected one of tune, compare")
    return Sweep("configs/stdlib_tiny.py", points, SETTINGS)
