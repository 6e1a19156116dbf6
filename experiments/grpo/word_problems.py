"""Word problems with an answer after ####, as in GSM8K: GRPO rewards the right final number, however it is reached.

  python experiments/grpo/word_problems.py --folder=runs/word_problems --seeds=3

Makes problems of two steps with small numbers, a base that has learned from written solutions, and for each seed a run
of GRPO (`training.reward = final_number`) from it. Finished runs are not trained again. Writes word_problems.csv beside
this file.
"""

import argparse
import csv
import random
from pathlib import Path

import measure

HERE = Path(__file__).parent
NAMES, THINGS = ("Ann", "Tom", "Eva", "Ben", "Mia", "Sam"), ("apples", "pens", "books", "coins", "cards", "stones")
PROBLEMS, HELD_OUT = 4000, 300
LENGTHS = {"data.source_length": 80, "data.sequence_length": 120, "model.max_positions": 120}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base_steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    data, base = prepared(options.folder), options.folder / "base"
    measure.train(base, data, {
        "training.objective": "completion", "training.duration": f"{options.base_steps} steps",
        "training.batch_size": 16, "optimizer.learning_rate": 2e-3, "evaluation.every": "200 steps",
        **measure.OF_MODEL, **LENGTHS,
    })  # fmt: skip
    rows = []
    for seed in range(options.seeds):
        run = options.folder / f"grpo_{seed}"
        measure.train(run, data, measure.on_policy("grpo", seed, base, base, options.steps) | LENGTHS | {
            "training.reward": "final_number", "training.batch_size": 16, "evaluation.every": "50 steps",
            "optimizer.learning_rate": 1e-4,
        })  # fmt: skip
        rows.append(measure.row("GRPO", seed, run))
        print(rows[-1], flush=True)
        with open(HERE / "word_problems.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


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
