"""Which learning rate, dropout and length of training suit The Verdict? twelve short runs.

python -m gptjax.sweep experiments/from_scratch/sweep.py --workdir=runs/verdict_sweep
"""

from gptjax.sweeping import Sweep, grid, over


def get_sweep():
    return Sweep(
        config="configs/text_tiny.py",
        points=grid(
            over("optimizer.learning_rate", [1e-3, 3e-3, 1e-2]),
            over("model.dropout", [0.0, 0.3]),
            over("training.duration", ["40 steps", "80 steps"]),
        ),
        settings={
            "data.path": "data/verdict",
            "optimizer.name": "adamw",
            "evaluation.every": "10 steps",
            "evaluation.sample_every": "",
            "checkpoint.every": "100 steps",
            "checkpoint.keep_latest": 1,
            "logging.tensorboard": False,
            "logging.plots": False,
        },
        x="optimizer.learning_rate",
    )
