"""How much memory a process takes that trains as gptjax train does, beside the plan.

  python experiments/plan/heap.py [CONFIG …]     # eight minutes for all; prints the table of README.md

Each config is trained for STEPS steps in two processes, both of which reuse the memory that they free. In the one,
steps wait for the ones before them, as in gptjax train. In the other, XLA may start them before, as it does by itself.
Planned is the step, and what the process has taken before the state is made: libraries, and what the compiler has
freed, some of which is used again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gptjax.command_line.kept_memory import keep_freed_memory

if sys.argv[1:2] == ["--here"]:
    keep_freed_memory()

import jax
from configs_measured import CONFIGS, facts
from one_run import batch_of, peak

from gptjax.command_line.runtime import run_in_turn, use_compilation_cache
from gptjax.forecast.step import read_needs
from gptjax.planning import plan

STEPS = 12
WAYS = ("in turn", "ahead")


def train(name: str, way: str) -> None:
    """Trains a config in this process, and prints the bytes of the step as planned, of the process before, and of its
    peak."""
    use_compilation_cache()
    if way == "in turn":
        run_in_turn()
    config = CONFIGS[name]()
    made = plan(config, facts(config), jax.devices()[:1])
    jax.set_mesh(made.mesh)
    compiled = made.trainer.compile_train_step(made.abstract_batch)
    planned = read_needs(made, compiled).memory.total
    batch = jax.block_until_ready(batch_of(made))
    before = peak()
    state, last = made.trainer.init(), None
    for _ in range(STEPS):
        state, metrics = compiled(state, batch)
        if last is not None:
            float(last["train/loss"])
        last = metrics
    jax.block_until_ready(state)
    print(planned, before, peak())


def trained(name: str, way: str) -> list[float]:
    """The numbers of `train`, in MiB, from a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--here", name, way]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return [int(number) / 2**20 for number in done.stdout.split()[-3:]]


def main() -> None:
    if sys.argv[1:2] == ["--here"]:
        train(*sys.argv[2:])
        return
    columns = ("config", "step, MiB", "before, MiB", "peak in turn, MiB", "planned / measured", "peak ahead, MiB")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in sys.argv[1:] or CONFIGS:
        (step, before, peak), (_, _, ahead) = (trained(name, way) for way in WAYS)
        ratio = (step + before) / peak
        print(f"| {name} | {step:,.0f} | {before:,.0f} | {peak:,.0f} | {ratio:.2f} | {ahead:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
