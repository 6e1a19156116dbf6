"""GRPO beside on-policy distillation at equal processor time: the cost of a step of each, and their rewards by cost.

  python experiments/grpo/equal_time.py --folder=runs/equal_time

The rewards are those of results.csv, which measure.py has written. The cost of a step is the processor time of a run of
120 steps without evaluation, less that of one of 20 steps, which takes as long to start and to compile. The two
objectives take turns. Base and teacher are trained for a few steps only: what they have learned does not change the
work of a step.
"""

import argparse
import csv
import resource
import shutil
import statistics
from pathlib import Path

import measure

SHORT, LONG = 20, 120
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the processor time of the objective that needs less for all its steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    data = measure.prepared(options.folder)
    base, teacher = (measure.learned_from_answers(options.folder / name, data, 20) for name in ("base", "teacher"))
    costs: dict[str, list[float]] = {arm: [] for arm in measure.ARMS}
    for _ in range(options.repeats):
        for arm, objective in measure.ARMS.items():
            seconds = [seconds_of(options.folder / "run", data, objective, base, teacher, n) for n in (SHORT, LONG)]
            costs[arm].append((seconds[1] - seconds[0]) / (LONG - SHORT))
            print(f"{arm}: {1e3 * costs[arm][-1]:.0f} processor ms per step", flush=True)
    show(costs)


def seconds_of(run: Path, data: Path, objective: str, base: Path, teacher: Path, steps: int) -> float:
    """The processor seconds of a new run of some steps."""
    shutil.rmtree(run, ignore_errors=True)
    before = processor_seconds()
    settings = measure.on_policy(objective, 0, base, teacher, steps)
    measure.train(run, data, settings | {"evaluation.every": "", "logging.plots": False})
    return processor_seconds() - before


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(costs: dict[str, list[float]]) -> None:
    """Prints the rewards of all seeds after equal processor time."""
    with open(measure.HERE / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    evaluated = sorted(int(name.removeprefix("reward_")) for name in rows[0] if name.startswith("reward_"))
    cost = {arm: statistics.median(found) for arm, found in costs.items()}
    whole = min(cost.values()) * evaluated[-1]
    print("| processor seconds | " + " | ".join(f"{arm}: steps | reward, {arm}" for arm in cost) + " |")
    print("|" + "---|" * (1 + 2 * len(cost)))
    for share in SHARES:
        cells = []
        for arm, each in cost.items():
            step = max(step for step in evaluated if step <= max(share * whole / each, evaluated[0]))
            rewards = [float(row[f"reward_{step}"]) for row in rows if row["arm"] == arm]
            cells += [f"{step:,}", f"{statistics.mean(rewards):.3f} ({min(rewards):.3f} to {max(rewards):.3f})"]
        print(f"| {share * whole:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
