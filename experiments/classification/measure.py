"""Spam or ham: trains a classifier for every row of the tables in README.md, and scores it on the test split.

  python experiments/classification/measure.py --folders book=data/book all=data/all --starts base=runs/base \
    --runs=runs/spam --rows last_block whole scratch --seeds=2

--folders names the prepared folders and --starts the pretrained runs that the rows (ROWS below) need; README.md says
how they are made. With --rates=5e-4,1e-3,2e-3, each row is trained at these learning rates with seed 0, and all seeds
then have the one with the best validation accuracy, of equals the one with the lower loss. A finished run is not
trained again. Each result goes into --results beside this file, in place of an earlier one of the same row and seed;
the table of all results is printed. Needs scikit-learn.
"""

import argparse
import csv
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from gptjax import tokenizer as tokenizers
from gptjax.data.tokens import TokenSource
from gptjax.evaluation.classification import scores_of_classes

HERE = Path(__file__).parent
FIELDS = ("data", "row", "seed", "step", "accuracy", "macro_f1", "loss", "truncated", "ham_as_spam", "spam_as_ham")
RATE = "optimizer.learning_rate"


class Row(NamedTuple):
    """config: a file in configs. start: the pretrained run; '': random parameters. flags: field → value."""

    config: str
    data: str
    start: str = ""
    flags: Mapping[str, object] = MappingProxyType({})


FROZEN = ("body/.*", "freeze", True)
FIRST_BLOCK = (FROZEN, ("body/(layers/0|final_norm)/.*", "freeze", False))
STEPS = {"training.duration": "197 steps"}  # three epochs of the book's split
ROWS = {
    "last_block": Row("classifier.py:{start},last_block", "book", "base", STEPS),
    "first_block": Row("classifier.py:{start}", "book", "base", STEPS | {"optimizer.rules": FIRST_BLOCK}),
    "head": Row("classifier.py:{start}", "book", "base", STEPS | {"optimizer.rules": (FROZEN,)}),
    "whole": Row("classifier.py:{start}", "book", "base", STEPS),
    "first_token": Row("classifier.py:{start},last_block", "book", "base", STEPS | {"model.pooling": "first"}),
    "mean": Row("classifier.py:{start},last_block", "book", "base", STEPS | {"model.pooling": "mean"}),
    "longest": Row("classifier.py:{start},last_block", "book", "base", STEPS | {"data.sequence_length": 256}),
    "lora": Row("classifier.py:{start}", "book", "base", STEPS | {"model.lora_rank": 16, "model.lora_alpha": 16.0}),
    "scratch": Row("classifier.py", "book", "", STEPS),
    "scratch_no_mask": Row("classifier.py", "book", "", STEPS | {"model.body": "encoder"}),
    "all": Row("classifier.py:{start}", "all", "base", STEPS),
    "all_weighted": Row("classifier.py:{start}", "all", "base", STEPS | {"training.class_weights": "balanced"}),
    "encoder": Row("encoder.py:spam", "sms"),
    "encoder_pretrained": Row("encoder.py:spam", "sms", "encoder"),
    "encoder_last_block": Row("encoder.py:last_block", "sms", "encoder"),
    "decoder": Row("encoder.py:decoder", "sms"),
}
BOOK_LENGTH = 120  # tokens that the book reads of a message
SCRATCH = {"model.width": 256}  # as the pretrained run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folders", nargs="+", required=True, help="NAME=FOLDER: book, all, sms")
    parser.add_argument("--starts", nargs="*", default=[], help="NAME=RUN: base, encoder")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", default="", help="learning rates, separated by commas; '': that of the config")
    parser.add_argument("--results", default="results.csv")
    options = parser.parse_args()
    results = HERE / options.results
    folders, starts = (dict(pair.split("=", 1) for pair in pairs) for pairs in (options.folders, options.starts))
    for name, folder in folders.items():
        for result in baselines(name, folder):
            store(results, result)
    rates = list(filter(None, options.rates.split(",")))
    best: dict[str, str] = {}

    def run_of(name: str, seed: int, rate: str) -> tuple[dict, Path]:
        run = options.runs / "_".join([name, *filter(None, [rate]), str(seed)])
        return trained(ROWS[name], name, seed, rate, folders, starts, run), run

    for name in options.rows if rates else ():
        found = {rate: validation_scores(run_of(name, 0, rate)[1]) for rate in rates}
        best[name] = max(rates, key=found.__getitem__)
        scores = ", ".join(f"{rate} {accuracy:.3f} ({-loss:.3f})" for rate, (accuracy, loss) in found.items())
        print(f"{name}: validation accuracy (loss) by learning rate: {scores}; taken: {best[name]}", flush=True)
    for seed, name in itertools.product(range(options.seeds), options.rows):
        store(results, run_of(name, seed, best.get(name, ""))[0])
    print(table(results))


def validation_scores(run: Path) -> tuple[float, float]:
    """Accuracy and negative loss of the best evaluation, by accuracy and then by loss."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return max((row["validation/accuracy"], -row["validation/loss"]) for row in rows if "validation/accuracy" in row)


def trained(
    row: Row, name: str, seed: int, rate: str, folders: dict[str, str], starts: dict[str, str], run: Path
) -> dict:
    found = run / "classification" / "confusion.json"
    if not found.exists():
        fields = {"data.path": folders[row.data], "seed": seed, "logging.tensorboard": False, "logging.plots": False}
        if row.config.startswith("classifier.py"):
            fields |= {"data.sequence_length": BOOK_LENGTH} | ({} if row.start else SCRATCH)
        elif row.start:
            fields["training.init_from"] = starts[row.start]
        if rate:
            fields[RATE] = rate
        config = row.config.format(start=starts.get(row.start))
        flags = [f"--config.{field}={value}" for field, value in (fields | dict(row.flags)).items()]
        command("train", f"--config=configs/{config}", f"--workdir={run}", *flags)
        command("classify", f"--workdir={run}", "--checkpoint=best", f"--data={folders[row.data]}", "--split=test")
    scores = json.loads(found.read_text())
    return result(row.data, name, seed, np.array(scores["confusion"]), scores)


def command(name: str, *flags: str) -> None:
    subprocess.run([sys.executable, "-m", f"gptjax.{name}", *flags], check=True, stdout=subprocess.DEVNULL)


def baselines(data: str, folder: str) -> list[dict]:
    """Always ham, and multinomial naive Bayes on counts of words, both with scikit-learn's defaults."""
    (train, labels), (test, truth) = texts(folder, "train"), texts(folder, "test")
    counts = CountVectorizer().fit(train)
    model = MultinomialNB().fit(counts.transform(train), labels)
    log_probabilities = model.predict_log_proba(counts.transform(test))
    predictions = {"always ham": np.zeros_like(truth), "naive Bayes": log_probabilities.argmax(1)}
    nll = {"always ham": np.nan, "naive Bayes": -log_probabilities[np.arange(len(truth)), truth].sum()}
    results = []
    for name, predicted in predictions.items():
        confusion = np.zeros((2, 2))
        np.add.at(confusion, (truth, predicted), 1)
        scores = scores_of_classes({"confusion": confusion, "nll": nll[name]})
        scores = {key.removeprefix("validation/"): value for key, value in scores.items()}
        results.append(result(data, name, 0, confusion, scores))
    return results


def texts(folder: str, split: str) -> tuple[list[str], np.ndarray]:
    source, tokenizer = TokenSource(folder, split), tokenizers.load(folder)
    assert source.labels == ["ham", "spam"]
    offsets = source.document_offsets().astype(np.int64)
    ids = source.take_runs(np.array([0]), np.array([source.num_tokens]))
    documents = [tokenizer.decode(ids[a : b - 1].tolist()) for a, b in itertools.pairwise(offsets)]
    return documents, np.asarray(source.document_labels())


# --- Results ----------------------------------------------------------------------------------------------------------


def result(data: str, row: str, seed: int, confusion: np.ndarray, scores: dict) -> dict:
    wrong = {"ham_as_spam": int(confusion[0, 1]), "spam_as_ham": int(confusion[1, 0])}
    kept = {name: scores.get(name, "") for name in ("step", "accuracy", "macro_f1", "loss", "truncated")}
    return {"data": data, "row": row, "seed": str(seed), **kept, **wrong}


def stored(results: Path) -> list[dict]:
    if not results.exists():
        return []
    with open(results, newline="") as file:
        return list(csv.DictReader(file))


def store(results: Path, new: dict) -> None:
    def key(each: dict) -> tuple:
        return each["data"], each["row"], each["seed"]

    kept = [each for each in stored(results) if key(each) != key(new)]
    with open(results, "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(sorted([*kept, new], key=key))


def table(path: Path) -> str:
    """All results in Markdown. The standard error is that of a share of the test messages, averaged over the seeds."""
    lines = ["| data | row | seeds | accuracy | macro-F1 | loss | ham → spam | spam → ham |", "|---" * 8 + "|"]
    for (data, row), group in itertools.groupby(stored(path), lambda each: (each["data"], each["row"])):
        results = list(group)
        accuracy, f1, loss = (
            float(np.mean([float(each[name]) for each in results])) for name in ("accuracy", "macro_f1", "loss")
        )
        wrong = [sum(int(each[name]) for name in ("ham_as_spam", "spam_as_ham")) for each in results]
        messages = wrong[0] / max(1 - float(results[0]["accuracy"]), 1e-9) if wrong[0] else math.nan
        error = math.sqrt(accuracy * (1 - accuracy) / messages)
        errors = [", ".join(each[name] for each in results) for name in ("ham_as_spam", "spam_as_ham")]
        cells = [data, row, str(len(results)), f"{accuracy:.4f} ± {error:.4f}", f"{f1:.4f}", f"{loss:.4f}", *errors]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
