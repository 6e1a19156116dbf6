"""Sums of two numbers: a model that often errs learns from rewards (GRPO), or from a better model on its own texts.

  python experiments/grpo/measure.py --folder=runs/grpo --seeds=3

Makes the data, a base and a teacher (the base's training, continued for longer), then for each seed a run of GRPO and
one of on-policy distillation from the same base. Finished runs are not trained again. Writes results.csv and reward.png
beside this file.
"""

import argparse
import csv
import random
import subprocess
import sys
from pathlib import Path

from gptjax.training.records.plots import compare_runs
from gptjax.training.records.writers import read_metrics

HERE = Path(__file__).parent
ARMS = {"GRPO": "grpo", "on-policy distillation": "on_policy_distillation"}
MODEL = {"num_layers": 2, "width": 96, "num_heads": 3, "dropout": 0.0, "max_positions": 64}
OF_MODEL = {f"model.{name}": value for name, value in MODEL.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base_steps", type=int, default=1000)
    parser.add_argument("--teacher_steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    data = prepared(options.folder)
    base, teacher = (
        learned_from_answers(options.folder / name, data, steps)
        for name, steps in (("base", options.base_steps), ("teacher", options.teacher_steps))
    )
    folders: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    rows = []
    for arm, objective in ARMS.items():
        for seed in range(options.seeds):
            folder = options.folder / f"{objective}_{seed}"
            train(folder, data, on_policy(objective, seed, base, teacher, options.steps))
            folders[arm].append(folder)
            rows.append(row(arm, seed, folder))
            print(rows[-1], flush=True)
    with open(HERE / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    compare_runs(folders, HERE / "reward.png", "validation/reward")


def prepared(folder: Path) -> Path:
    """Pairs such as 17+25= and 42: 4,000 of the sums of two numbers below 100, a tenth of them for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = [(a, b) for a in range(100) for b in range(100)]
    chosen = random.Random(0).sample(sums, 4000)
    (folder / "sums.tsv").write_text("".join(f"{a}+{b}=\t{a + b}\n" for a, b in chosen))
    command("prepare", f"--pairs={folder / 'sums.tsv'}", f"--output={folder / 'data'}", "--tokenizer=char",
            "--validation_documents=400")  # fmt: skip
    return folder / "data"


def learned_from_answers(folder: Path, data: Path, steps: int) -> Path:
    train(folder, data, {
        "training.objective": "completion", "training.duration": f"{steps} steps", "training.batch_size": 16,
        "data.sequence_length": 64, "optimizer.learning_rate": 2e-3, "evaluation.every": "100 steps",
        **OF_MODEL,
    })  # fmt: skip
    return folder


def on_policy(objective: str, seed: int, base: Path, teacher: Path, steps: int) -> dict:
    """The settings of a run: 32 prompts per step with 8 texts each, of at most four tokens."""
    return {
        "seed": seed, "training.objective": objective, "training.duration": f"{steps} steps",
        "training.batch_size": 32, "training.group_size": 8, "training.init_from": base, "training.teacher": teacher,
        "data.source_length": 8, "data.sequence_length": 12, "optimizer.learning_rate": 5e-5,
        "optimizer.weight_decay": 0.0, "schedule.name": "constant", "evaluation.every": "20 steps",
        **OF_MODEL,
    }  # fmt: skip


def train(folder: Path, data: Path, settings: dict) -> None:
    common = {"data.path": data, "evaluation.tokens": 0, "logging.tensorboard": False, "checkpoint.every": "100 steps"}
    flags = [f"--config.{name}={value}" for name, value in (common | settings).items()]
    command("train", f"--config={HERE / 'config.py'}", f"--workdir={folder}", *flags)


def command(name: str, *flags: str) -> None:
    subprocess.run([sys.executable, "-m", f"gptjax.{name}", *flags], check=True, stdout=subprocess.DEVNULL)


def row(arm: str, seed: int, folder: Path) -> dict:
    found = read_metrics(folder / "metrics.jsonl")
    rewards = [each for each in found if "validation/reward" in each]
    trained = [each for each in found if "train/reward" in each]
    return {
        "arm": arm,
        "seed": seed,
        "first_training_reward": round(trained[0]["train/reward"], 4),
        **{f"reward_{each['step']}": round(each["validation/reward"], 4) for each in rewards},
        "seconds": round(found[-1]["elapsed_seconds"]),
    }


if __name__ == "__main__":
    main()
