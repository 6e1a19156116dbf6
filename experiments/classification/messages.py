"""Cuts the SMS Spam Collection as chapter 6 of "Build a Large Language Model (From Scratch)" does.

  python experiments/classification/messages.py SMSSpamCollection data/messages

It writes train.csv, validation.csv and test.csv with 1,045, 149 and 300 messages, half of them spam: all 747 spam
messages and as many others, drawn and shuffled with the seed of the book, so that they are the book's own messages in
the book's order. all_train.csv has every message of the collection except those of validation.csv and test.csv and
copies of these: the same task without undersampling. Each file has the columns label and text.
"""

import csv
import itertools
import sys
from pathlib import Path

import numpy as np

SEED = 123
SHARES = (0.7, 0.1)  # of training and validation; the rest is the test split


def main(collection: str, output: str) -> None:
    with open(collection, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))  # a quote may join lines, as in the book: 5,572 rows
    spam = [row for row in rows if row[0] == "spam"]
    balanced = drawn([row for row in rows if row[0] == "ham"], len(spam)) + spam
    balanced = drawn(balanced, len(balanced))
    ends = [0, *np.cumsum([int(share * len(balanced)) for share in SHARES]), len(balanced)]
    train, validation, test = (balanced[a:b] for a, b in itertools.pairwise(ends))
    held_out = {text.strip() for _, text in validation + test}
    files = {"train": train, "validation": validation, "test": test}
    files["all_train"] = [row for row in rows if row[1].strip() not in held_out]
    Path(output).mkdir(parents=True, exist_ok=True)
    for name, some in files.items():
        with open(Path(output) / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("label", "text"), *some])
        count = sum(label == "spam" for label, _ in some)
        print(f"{name}.csv: {len(some):,} messages, {count:,} of them spam")
    known = {text for _, text in train}
    copies = sum(text in known for _, text in test)
    print(f"{copies} messages of test.csv are also in train.csv: the collection has copies")


def drawn(rows: list, count: int) -> list:
    """`count` rows in random order, the same that pandas' `sample(count, random_state=SEED)` draws."""
    return [rows[index] for index in np.random.RandomState(SEED).choice(len(rows), size=count, replace=False)]


if __name__ == "__main__":
    main(*sys.argv[1:])
