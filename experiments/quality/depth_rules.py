"""Compares rules for configs/depth.py: how matrices start, and how fast the embedding learns; each rule alone, and
both.

  python -m gptjax.sweep experiments/quality/depth_rules.py:4,data/books --workdir=runs/rules/4

    plain      matrices, embedding and head start with a standard deviation of 0.02; AdamW has one rate for the last two
    matrices   matrices start with 1 / sqrt(D), the head with 0.001
    embedding  the embedding starts with 1, and its rate is 100 times the head's, without decay
    both       matrices and embedding, as in nanochat (github.com/karpathy/nanochat, nanochat/gpt.py)

Two seeds. All else is as in `depth.py` beside this file, but a run has a fixed number of steps.
"""

import runpy
from pathlib import Path

from gptjax.sweeping import Sweep, grid, named, seeds

STEPS = {4: 100, 6: 60, 8: 40}  # of 1,024 tokens
DEPTH = runpy.run_path(str(Path(__file__).with_name("depth.py")))


def get_sweep(arg: str) -> Sweep:
    depth, data = arg.split(",", 1)
    small = {"model.initialization_std": 0.02, "model.head_std": 0.0}
    by_width = {"model.initialization_std": (64 * int(depth)) ** -0.5, "model.head_std": 0.001}
    slow = {"model.embedding_std": 0.0, "optimizer.rules": ()}
    fast = {
        "model.embedding_std": 1.0,
        "optimizer.rules": (("embedding", "learning_rate", 100.0), ("embedding", "weight_decay", 0.0)),
    }
    rules = {"plain": small | slow, "matrices": by_width | slow, "embedding": small | fast, "both": by_width | fast}
    settings = {**DEPTH["COMMON"], "data.path": data, "training.duration": f"{STEPS[int(depth)]} steps"}
    config = f"{DEPTH['CONFIG']}:{depth}"
    return Sweep(config, grid(seeds(2), named(rules)), settings, metric="validation/bits_per_byte")
