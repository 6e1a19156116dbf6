"""gptjax's side in speed.py: python experiments/translation/gptjax_side.py --data=data/fra_eng --steps=1500

Compiles the training step of configs/translation.py, warms up, prints a line of JSON with its facts, and then, for each
number that it reads, takes that many steps as training does (batches are prefetched, and metrics are read one step
late) and prints their seconds and the last loss.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import jax

from gptjax import planning
from gptjax.command_line.kept_memory import keep_freed_memory
from gptjax.config.user_code import load_config
from gptjax.data.facts import facts_of
from gptjax.parallel.distributed import local_rows, put_batch
from gptjax.settings import freeze
from gptjax.training.objectives import make_objective

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import take_turns


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    keep_freed_memory()  # as `python -m gptjax.train` does
    config = load_config("configs/translation.py")
    config.data.path, config.training.duration = options.data, f"{options.steps} steps"
    size = config.training.batch_size
    data = make_objective(freeze(config)).open_data("train", size)
    plan = planning.plan(freeze(config), facts_of(data), jax.devices())
    jax.set_mesh(plan.mesh)
    train_step = plan.trainer.compile_train_step(plan.abstract_batch)
    state = plan.trainer.init()
    rows = local_rows(plan.mesh, size, 1)
    batches = data.batches(0, rows)

    def steps(count: int) -> float:
        nonlocal state
        pending = None
        for _ in range(count):
            state, metrics = train_step(state, put_batch(plan.mesh, next(batches), rows, size, 1))
            if pending is not None:
                jax.device_get(pending)
            pending = metrics
        jax.block_until_ready(state)
        return float(jax.device_get(pending)["train/loss"])

    facts = {"parameters": plan.parameters.total, "jax": jax.__version__, "threads": os.cpu_count()}
    take_turns(steps, facts)


if __name__ == "__main__":
    main()
