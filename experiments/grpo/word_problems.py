"""Word problems with an answer after ####, as in GSM8K: GRPO rewards the right final number, however it is reached.

  python experiments/grpo/word_problems.py --folder=runs/word_problems --seeds=3

Makes problems of two steps with small numbers, a base that learns from written solutions and is stopped when one in six
of its answers is right, and for each seed a run of GRPO (`training.reward = final_number`) from it. Finished runs are
not trained again. Writes word_problems.csv and word_problems.png beside this file.
"""

import argparse
import csv
import random
from pathlib import Path

import measure

from gptjax.training.records.plots import compare_runs

HERE = Path(__file__).parent
NAMES, THINGS = ("Ann", "Tom", "Eva", "Ben", "Mia", "Sam"), ("apples", "pens", "books", "coins", "cards", "stones")
PROBLEMS, HELD_OUT = 4000, 300
LENGTHS = {"data.source_length": 76, "data.sequence_length": 112, "model.max_positions": 112}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base_steps", type=int, default=900)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    data, base = prepared(options.folder), options.folder / "base"
    measure.train(base, data, {
        "training.objective": "completion", "training.duration": f"{options.base_steps} steps",
        "training.batch_size": 16, "optimizer.learning_rate": 2e-3, "evaluation.every": "50 steps",
        "schedule.name": "constant", "schedule.warmup": "50 steps", **measure.OF_MODEL, **LENGTHS,
    })  # fmt: skip
    rows, runs = [], []
    for seed in range(options.seeds):
        run = options.folder / f"grpo_{seed}"
        measure.train(run, data, measure.on_policy("grpo", seed, base, base, options.steps) | LENGTHS | {
            "training.reward": "final_number", "training.batch_size": 16, "evaluation.every": "20 steps",
            "optimizer.learning_rate": 1e-4,
        })  # fmt: skip
        rows.append(measure.row("GRPO", seed, run))
        print(rows[-1], flush=True)
        with open(HERE / "word_problems.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        runs.append(run)
        compare_runs({"GRPO": runs}, HERE / "word_problems.png", "validation/reward")


def prepared(folder: Path) -> Path:
    """Pairs of a problem and its solution, such as '12 - 5 = 7. 7 + 8 = 15. #### 15'."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, lines = random.Random(0), {}
    while len(lines) < PROBLEMS:
        problem, solution = problem_and_solution(draw)
        lines[problem] = f"{problem}\t{solution}\n"
    (folder / "problems.tsv").write_text("".join(lines.values()))
    measure.command("prepare", f"--pairs={folder / 'problems.tsv'}", f"--output={folder / 'data'}", "--vocab_size=320",
                    f"--validation_documents={HELD_OUT}")  # fmt: skip
    return folder / "data"


def problem_and_solution(draw: random.Random) -> tuple[str, str]:
    (name, other), things = draw.sample(NAMES, 2), draw.choice(THINGS)
    has, times, more = draw.randint(5, 20), draw.randint(2, 4), draw.randint(2, 9)
    less = draw.randint(1, has - 1)
    if draw.random() < 0.5:
        rest, question = has - less, f"How many {things} are left?"
        problem = f"{name} has {has} {things}. {name} gives {less} to {other} and buys {more}. {question}"
        return problem, f"{has} - {less} = {rest}. {rest} + {more} = {rest + more}. #### {rest + more}"
    problem = f"{name} fills {times} bags with {more} {things} each and has {has} more. How many {things} has {name}?"
    total = times * more
    return problem, f"{times} * {more} = {total}. {total} + {has} = {total + has}. #### {total + has}"


if __name__ == "__main__":
    main()
