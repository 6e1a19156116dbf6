"""Spam or ham: compares encoders and decoders from plain and pretrained starts with two baselines on one test split.

  python experiments/classification/measure.py --data=data/sms --pretrained=runs/encoder --runs=runs/spam --seeds=2

--pretrained is a run of configs/encoder.py:pretrain, --pretrained_decoder one of :pretrain_decoder, --data what its
docstring prepares. --starts chooses among plain, pretrained, last_block (pretrained, with all layers below the last one
frozen), decoder and pretrained_decoder. Finished runs are not trained again. Writes results.csv and the confusion
matrices of the encoder's two starts beside this file. Needs scikit-learn.
"""

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from gptjax import tokenizer as tokenizers
from gptjax.data.tokens import TokenSource
from gptjax.evaluation.classification import scores_of_classes

HERE = Path(__file__).parent
FIELDS = ("start", "seed", "step", "accuracy", "macro_f1", "loss", "truncated", "ham_as_spam", "spam_as_ham")

STARTS = {  # name: the argument of the config, and the option that names the run whose parameters it starts with
    "plain": ("spam", None),
    "pretrained": ("spam", "pretrained"),
    "last_block": ("last_block", "pretrained"),
    "decoder": ("decoder", None),
    "pretrained_decoder": ("decoder", "pretrained_decoder"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("--pretrained_decoder")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--starts", default="pretrained,plain")
    options = parser.parse_args()
    rows = baselines(options.data)
    for seed in range(options.seeds):
        for start in options.starts.split(","):
            rows.append(trained(start, seed, options))
            print(rows[-1], flush=True)
            with open(HERE / "results.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(rows)


def trained(start: str, seed: int, options: argparse.Namespace) -> dict:
    run = options.runs / f"{start}_{seed}"
    arm, begun_by = STARTS[start]
    flags = [f"--config=configs/encoder.py:{arm}", f"--config.data.path={options.data}", f"--config.seed={seed}"]
    if begun_by:
        flags.append(f"--config.training.init_from={getattr(options, begun_by)}")
    command("train", f"--workdir={run}", *flags)
    command("classify", f"--workdir={run}", "--checkpoint=best", f"--data={options.data}", "--split=test")
    if seed == 0 and start in ("plain", "pretrained"):
        shutil.copy(run / "classification" / "confusion.png", HERE / f"confusion_{start}.png")
    found = json.loads((run / "classification" / "confusion.json").read_text())
    return row(start, seed, np.array(found["confusion"]), found)


def command(name: str, *flags: str) -> None:
    subprocess.run([sys.executable, "-m", f"gptjax.{name}", *flags], check=True, stdout=subprocess.DEVNULL)


def baselines(data: str) -> list[dict]:
    """Always ham, and multinomial naive Bayes on counts of words, both with scikit-learn's defaults."""
    (train, labels), (test, truth) = texts(data, "train"), texts(data, "test")
    counts = CountVectorizer().fit(train)
    model = MultinomialNB().fit(counts.transform(train), labels)
    log_probabilities = model.predict_log_proba(counts.transform(test))
    predictions = {"always ham": np.zeros_like(truth), "naive Bayes": log_probabilities.argmax(1)}
    nll = {"always ham": np.nan, "naive Bayes": -log_probabilities[np.arange(len(truth)), truth].sum()}
    rows = []
    for name, predicted in predictions.items():
        confusion = np.zeros((2, 2))
        np.add.at(confusion, (truth, predicted), 1)
        scores = scores_of_classes({"confusion": confusion, "nll": nll[name]})
        rows.append(row(name, "", confusion, {key.removeprefix("validation/"): v for key, v in scores.items()}))
    return rows


def texts(data: str, split: str) -> tuple[list[str], np.ndarray]:
    source, tokenizer = TokenSource(data, split), tokenizers.load(data)
    assert source.labels == ["ham", "spam"]
    offsets = source.document_offsets().astype(np.int64)
    ids = source.take_runs(np.array([0]), np.array([source.num_tokens]))
    documents = [tokenizer.decode(ids[a : b - 1].tolist()) for a, b in itertools.pairwise(offsets)]
    return documents, np.asarray(source.document_labels())


def row(start: str, seed: int | str, confusion: np.ndarray, scores: dict) -> dict:
    wrong = {"ham_as_spam": int(confusion[0, 1]), "spam_as_ham": int(confusion[1, 0])}
    kept = {name: scores.get(name, "") for name in ("step", "accuracy", "macro_f1", "loss", "truncated")}
    return {"start": start, "seed": seed, **kept, **wrong}


if __name__ == "__main__":
    main()
