"""A larger run into a smaller one: compares students of a teacher with the same model trained without it.

  python experiments/distillation/measure.py --data=data/text --teacher=runs/teacher --runs=runs/distillation --seeds=3

Finished runs are not trained again. Writes results.csv and loss.png beside this file.
"""

import argparse
import csv
import statistics
import subprocess
import sys
from pathlib import Path

from gptjax.training.records.plots import compare_runs
from gptjax.training.records.writers import read_metrics

HERE = Path(__file__).parent
ARMS = {
    "from scratch": ("next_token", {}),
    "distilled, all tokens": ("distillation", {}),
    "distilled, 32 likeliest tokens": ("distillation", {"distillation_top_k": 32}),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    folders: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    rows = []
    for seed in range(options.seeds):
        for arm in ARMS:
            folder = trained(arm, seed, options)
            folders[arm].append(folder)
            rows.append(row(arm, seed, folder))
            print(rows[-1], flush=True)
    with open(HERE / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for arm in ARMS:
        losses = [row["loss"] for row in rows if row["arm"] == arm]
        print(f"{arm}: {statistics.mean(losses):.4f}, from {min(losses):.4f} to {max(losses):.4f}")
    compare_runs(folders, HERE / "loss.png")


def trained(arm: str, seed: int, options: argparse.Namespace) -> Path:
    objective, fields = ARMS[arm]
    folder = options.runs / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"
    settings = {
        "seed": seed,
        "data.path": options.data,
        "data.sequence_length": 128,
        "model.num_layers": 2,
        "model.width": 128,
        "model.num_heads": 2,
        "model.dropout": 0.0,
        "training.objective": objective,
        "training.batch_size": 16,
        "training.duration": f"{options.steps} steps",
        "evaluation.every": "50 steps",
        "evaluation.tokens": 32_768,
        "evaluation.sample_every": "",
        "logging.tensorboard": False,
        "logging.plots": False,
        **{f"training.{name}": value for name, value in fields.items()},
    }
    if objective == "distillation":
        settings["training.teacher"] = options.teacher
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "gptjax.train", "--config=configs/text_tiny.py", f"--workdir={folder}", *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def row(arm: str, seed: int, folder: Path) -> dict:
    found = read_metrics(folder / "metrics.jsonl")
    last = next(each for each in reversed(found) if "validation/loss" in each)
    teacher = [each["train/teacher_loss"] for each in found if "train/teacher_loss" in each]
    times = [each["step_milliseconds"] for each in found if each.get("step_milliseconds")]
    return {
        "arm": arm,
        "seed": seed,
        "loss": round(last["validation/loss"], 4),
        "bits_per_byte": round(last["validation/bits_per_byte"], 4),
        "divergence": round(last["validation/divergence"], 4) if "validation/divergence" in last else "",
        "teacher_loss": round(statistics.mean(teacher[-5:]), 4) if teacher else "",
        "ms_per_step": round(statistics.median(times)),
    }


if __name__ == "__main__":
    main()
