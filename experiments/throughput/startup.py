"""Measures the parts of the time from the command to the end of the first step, in a first and a second start.

  python experiments/throughput/startup.py --data=data/stdlib

Each start is a separate process: the training command itself, with its stages timed. It gets SIGTERM when its first
step is done, so that it saves and exits as a preempted run does. The second start finds the compiled programs and the
checkpoint of the first.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
#        what: config and overrides
CASES = {
    "stdlib_tiny": ["configs/stdlib_tiny.py"],
    "gpt2:124m": [
        "configs/gpt2.py:124m",
        *("training.batch_size=1", "training.gradient_accumulation_steps=1", "training.loss_chunk=0"),
        *("data.sequence_length=256", "schedule.warmup=10 steps", "training.duration=1000 steps"),
    ],
}
# in the order in which they happen
STAGES = ("import", "open run", "show settings", "open checkpoints", "start", "compile", "first step")


def timed_start(command: list[str], born: float) -> None:
    """Runs the training command in this process, and prints the seconds of its stages as JSON after the first step."""
    import signal

    import jax

    from gptjax import train
    from gptjax.command_line import cli
    from gptjax.training.records.progress import Progress

    marks = {"import": time.time() - born}

    def clocked(stage: str, function):
        def run(*args, **kwargs):
            started = time.time()
            result = jax.block_until_ready(function(*args, **kwargs))
            marks[stage] = time.time() - started
            return result

        return run

    names = {
        "open_run": "open run",
        "show_settings": "show settings",
        "open_checkpoints": "open checkpoints",
        "start": "start",
        "compile_step": "compile",
    }
    for name, stage in names.items():
        setattr(train, name, clocked(stage, getattr(train, name)))
    push = Progress.push

    def first_push(self, step, metrics):
        if "all" not in marks:
            jax.block_until_ready(metrics)
            marks["all"] = time.time() - born
            marks["first step"] = marks["all"] - sum(marks[stage] for stage in STAGES[:-1])
            print(json.dumps(marks), file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
        push(self, step, metrics)

    Progress.push = first_push
    sys.argv = ["gptjax.train", *command]
    cli.run(train.main, train.flags)


def start(case: str, data: str, folder: Path) -> dict[str, float]:
    config, *overrides = CASES[case]
    command = [f"--config={REPOSITORY / config}", f"--workdir={folder / 'run'}", f"--config.data.path={data}"]
    command += [f"--config.{override}" for override in overrides]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla"), "PYTHONPATH": str(REPOSITORY)}
    arguments = [sys.executable, __file__, "--timed", repr(time.time()), *command]
    process = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{case}: exit status {process.returncode}\n{process.stderr[-4000:]}")
    return next(json.loads(line) for line in process.stderr.splitlines() if line.startswith("{"))


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="data/stdlib", help="a prepared folder with at most 50,257 tokens in its vocabulary"
    )
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=3, help="how often the second start is measured")
    arguments = parser.parse_args()

    print(f"| seconds, {os.cpu_count()} cores | {' | '.join(STAGES)} | to the end of the first step |")
    print("|---" * (len(STAGES) + 2) + "|", flush=True)
    for case in arguments.cases:
        folder = Path(tempfile.mkdtemp(prefix="gptjax-startup-"))
        try:
            show(f"{case}, first", [start(case, arguments.data, folder)])
            show(f"{case}, second", [start(case, arguments.data, folder) for _ in range(arguments.repeats)])
        finally:
            shutil.rmtree(folder)


def show(name: str, found: list[dict[str, float]]) -> None:
    parts = [f"{statistics.median(marks[stage] for marks in found):.2f}" for stage in STAGES]
    totals = [marks["all"] for marks in found]
    spread = f" ({min(totals):.2f} to {max(totals):.2f})" if len(totals) > 1 else ""
    print(f"| {name} | {' | '.join(parts)} | {statistics.median(totals):.2f}{spread} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--timed"]:
        timed_start(sys.argv[3:], float(sys.argv[2]))
    else:
        main()
