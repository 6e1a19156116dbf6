"""Long texts, of which a classifier reads only the beginning: who wrote this passage of a book?

  python experiments/classification/long_texts.py --books=classic_books --start=runs/base --runs=runs/authors

--books has a folder per author with a Markdown file per book. The authors with the most books are the labels. One book
of each is held out for the test, so nothing of it is read in training; passages of 500 to 8,000 characters are drawn
from the others. --start is a pretrained run. A finished run is not trained again. Prints the table of README.md, and
needs scikit-learn.
"""

import argparse
import csv
import json
import random
from pathlib import Path

import measure
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

AUTHORS, SHORTEST, LONGEST = 8, 500, 8000  # characters
PASSAGES = {"train": 100, "validation": 15, "test": 25}  # of each author
LENGTHS = (64, 128)  # tokens that the classifier reads


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    splits, data = passages(options.books), options.runs / "data"
    if not (data / "manifest.json").exists():
        for split, rows in splits.items():
            write(options.runs / f"{split}.csv", rows)
        held_out = (f"--{split}_input={options.runs / split}.csv" for split in ("validation", "test"))
        measure.command("prepare", f"--labelled={options.runs / 'train.csv'}", f"--tokenizer={options.start}",
                        f"--output={data}", *held_out)  # fmt: skip
    print("| reads | texts of the test that are cut | accuracy | macro-F1 |\n|---|---|---|---|")
    for length in LENGTHS:
        scores = scores_at(length, data, options)
        cut, total = scores["truncated"], AUTHORS * PASSAGES["test"]
        print(f"| {length} tokens | {cut} of {total} | {scores['accuracy']:.3f} | {scores['macro_f1']:.3f} |")
    print(f"| naive Bayes, words of the whole text | 0 | {naive_bayes(splits):.3f} | |")


def passages(books: Path) -> dict[str, list[tuple[str, str]]]:
    """(author, passage) of each split. The test has the last book of each author by name, training all others."""
    folders = sorted((path for path in books.iterdir() if path.is_dir()), key=lambda path: (-len(files(path)), path))
    draw, splits = random.Random(0), {split: [] for split in PASSAGES}
    for folder in folders[:AUTHORS]:
        *others, last = files(folder)
        for split, count in PASSAGES.items():
            for _ in range(count):
                text = (last if split == "test" else draw.choice(others)).read_text(encoding="utf-8")
                size = draw.randint(SHORTEST, LONGEST)
                start = draw.randrange(len(text) // 20, max(len(text) - size, len(text) // 20 + 1))
                splits[split].append((folder.name, " ".join(text[start : start + size].split())))
    return splits


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.md"))


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "text"), *rows])


def scores_at(length: int, data: Path, options: argparse.Namespace) -> dict:
    run = options.runs / f"reads_{length}"
    found = run / "classification" / "confusion.json"
    if not found.exists():
        fields = {
            "data.path": data, "data.sequence_length": length, "model.max_positions": length,
            "training.duration": f"{options.steps} steps", "logging.tensorboard": False, "logging.plots": False,
        }  # fmt: skip
        flags = [f"--config.{field}={value}" for field, value in fields.items()]
        measure.command("train", f"--config=configs/classifier.py:{options.start}", f"--workdir={run}", *flags)
        measure.command("classify", f"--workdir={run}", "--checkpoint=best", f"--data={data}", "--split=test")
    return json.loads(found.read_text())


def naive_bayes(splits: dict[str, list[tuple[str, str]]]) -> float:
    labels, texts = zip(*splits["train"])
    truth, test = zip(*splits["test"])
    counts = CountVectorizer().fit(texts)
    model = MultinomialNB().fit(counts.transform(texts), labels)
    return float(np.mean(model.predict(counts.transform(test)) == np.array(truth)))


if __name__ == "__main__":
    main()
