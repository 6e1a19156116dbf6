"""Summaries and answers by an encoder and a decoder, and by a decoder alone with the same number of parameters.

  python experiments/pairs/measure.py --summaries=data/scitldr --questions=data/squad --runs=runs/pairs

configs/summarization.py says how to prepare the folders. Trains four models with that config, evaluates them on the
test split, and writes results.csv and scores.png, which include baselines, beside this file. Finished work is not
repeated. --only=questions:decoder trains and evaluates one model and writes nothing beside this file; --share=0.5
halves the epochs of all models.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptjax import tokenizer as tokenizers
from gptjax.data.tokens import TokenSource
from gptjax.evaluation.requests import Written
from gptjax.evaluation.tasks import find_tasks
from gptjax.evaluation.tasks.kinds import KINDS
from gptjax.evaluation.tasks.metrics import METRICS, scores

HERE = Path(__file__).parent
CONFIG = "configs/summarization.py"
ARMS = ("encoder-decoder", "decoder")
DRAWS = 20  # random answers to each question


@dataclass(frozen=True)
class Subject:
    """One of the two tasks.

    Attributes:
      card: its name in configs/tasks. metrics: the card's metrics.
      epochs: of training, the same for both models, so that they see each pair equally often.
      lengths: data.sequence_length of each of ARMS, if it differs from the config's.
    """

    card: str
    metrics: tuple[str, ...]
    epochs: float
    lengths: dict[str, int]


SUBJECTS = {
    "summaries": Subject("summarization", ("rouge1", "rouge2", "rougeL"), 2.0, {}),
    "questions": Subject(  # answers are shorter than summaries
        "question_answering", ("squad_exact_match", "squad_f1"), 0.8, {"encoder-decoder": 64, "decoder": 576}
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--summaries", required=True)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only")
    options = parser.parse_args()
    rows = []
    for name, subject in SUBJECTS.items():
        data = getattr(options, name)
        if not options.only:
            rows += [row(name, baseline, found) for baseline, found in baselines(name, subject, data).items()]
        for arm in ARMS:
            if options.only in (None, f"{name}:{arm}"):
                run = options.runs / f"{name}_{arm}"
                rows.append(row(name, arm, trained(subject, arm, data, run, options.share)))
                print(rows[-1], flush=True)
    if not options.only:
        with open(HERE / "results.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for each in rows for key in each)))
            writer.writeheader()
            writer.writerows(rows)
        plot(rows)


# --- Models


def trained(subject: Subject, arm: str, data: str, run: Path, share: float) -> dict[str, Any]:
    """A model's scores, and the time that its training took."""
    flags = ["--config.evaluation.every=50%", "--config.checkpoint.every=50%"]
    flags.append(f"--config.training.duration={subject.epochs * share:g} epochs")
    if arm in subject.lengths:
        flags.append(f"--config.data.sequence_length={subject.lengths[arm]}")
    command("train", run, f"--config={CONFIG}:{arm}", f"--config.data.path={data}", *flags)
    command("evaluate", run, f"--tasks={subject.card}", f"--task_data={data}")
    (path,) = (run / "evaluation").glob("*/results.json")
    task = json.loads(path.read_text())["tasks"][subject.card]
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    facts = {"steps": last["step"], "validation_loss": last["validation/loss"], "truncated": task["truncated"]}
    return {**facts, **json.loads((run / "train_seconds.json").read_text()), **task["scores"]}


def command(name: str, run: Path, *flags: str) -> None:
    """Runs a command of gptjax; its time is recorded in the run's folder when it first succeeds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", f"gptjax.{name}", f"--workdir={run}", *flags], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    record, used = run / f"{name}_seconds.json", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not record.exists():
        record.write_text(json.dumps({f"processor_seconds_of_{name}": round(used)}))


# --- Baselines


def baselines(name: str, subject: Subject, data: str) -> dict[str, dict[str, Any]]:
    """Name → scores of answers that need no model."""
    (task,), _ = find_tasks(subject.card, [Path(data)])
    settings = task.card.settings

    def score(answers: list[str]) -> dict[str, Any]:
        records = [
            KINDS[settings.kind].judged(settings, item, [Written(answer, 0, "eos")])
            for item, answer in zip(task.items, answers)
        ]
        return scores(records, subject.metrics)

    texts = [item.prompts[0] for item in task.items]
    if name == "summaries":
        return {"first sentence": score([sentences(text)[0] for text in texts])}
    known = answers_of_training(data)
    (most_frequent, _), draw = Counter(known).most_common(1)[0], random.Random(0)
    lengths = [len(answer.split()) for answer in known]
    drawn = [score([span(text, draw.choice(lengths), draw) for text in texts]) for _ in range(DRAWS)]
    mean = {
        metric: {"value": float(np.mean([each[metric]["value"] for each in drawn])), "standard_error": None}
        for metric in subject.metrics
    }
    return {f"always {most_frequent!r}": score([most_frequent] * len(texts)), "a random span of the passage": mean}


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


def span(source: str, length: int, draw: random.Random) -> str:
    """`length` neighbouring words of the passage, which comes before the line of the question."""
    words = source.rpartition("\n")[0].split()
    first = draw.randrange(max(1, len(words) - length + 1))
    return " ".join(words[first : first + length])


def answers_of_training(data: str) -> list[str]:
    source, tokenizer = TokenSource(data, "train"), tokenizers.load(data)
    offsets = source.document_offsets().astype(np.int64)
    return [
        tokenizer.decode(source.take_runs(offsets[k : k + 1], offsets[k + 1 : k + 2] - offsets[k] - 1).tolist()).strip()
        for k in range(1, len(offsets) - 1, 2)
    ]


# --- Results


def row(subject: str, model: str, found: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {"subject": subject, "model": model}
    for name, value in found.items():
        if name in METRICS:
            flat |= {name: value["value"], f"{name}_error": value["standard_error"]}
        else:
            flat[name] = value
    return flat


def plot(rows: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, (name, metric) in zip(figure.subplots(1, 2), (("summaries", "rougeL"), ("questions", "squad_f1"))):
        of = [each for each in rows if each["subject"] == name]
        values = [100 * each[metric] for each in of]
        errors = [100 * (each[f"{metric}_error"] or 0.0) for each in of]
        colors = ["tab:blue" if each["model"] in ARMS else "lightgray" for each in of]
        axes.barh([each["model"] for each in of], values, xerr=errors, color=colors)
        axes.invert_yaxis()
        axes.set_title(name)
        axes.set_xlabel(f"{METRICS[metric].words}, %")
    figure.savefig(HERE / "scores.png", dpi=150)


if __name__ == "__main__":
    main()
