"""Scores of a classifier: accuracy and macro-F1 from a confusion matrix, and the loss."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Column, Table
from rich.text import Text

from gptjax.config import ConfigError
from gptjax.evaluation.scores import ACCURACY, Score
from gptjax.files import write_aside

MACRO_F1 = Score("validation/macro_f1", "validation macro-F1", "macro-F1 {:.4f}", higher_is_better=True)
TEXT_LOSS = Score("validation/loss", "validation loss (nats per text)", "loss {:.4f}")

MOST_IN_TABLE = 10  # labels whose whole matrix is printed; of more, the most frequent confusions are
MOST_CONFUSIONS = 20  # lines of that table
MOST_WRITTEN, MOST_NAMED = 30, 80  # labels up to which the picture has a number in each cell, and names beside the axes
MOST_INCHES = 20.0
NORMAL_95 = 1.959964  # this many standard deviations to each side of the mean hold 95 % of a normal distribution


def f1_of_classes(confusion_CC: np.ndarray) -> np.ndarray:
    """The F1 of each class, [C]: 2 · correct / (texts of the class + texts classified as the class).

    It is NaN for a class without such texts.

    Args:
      confusion_CC: row c, column d has the number of texts of class c that were classified as d.
    """
    right_C = np.diagonal(confusion_CC)
    both_C = confusion_CC.sum(0) + confusion_CC.sum(1)
    return np.divide(2 * right_C, both_C, out=np.full(len(right_C), np.nan), where=both_C > 0)


def scores_of_classes(sums: Mapping[str, Any]) -> dict[str, float]:
    """Scores from sums over all texts: confusion [C, C] and nll (nats).

    Macro-F1 is the unweighted mean of the F1 of all classes, except classes that neither occur nor are predicted.

    Raises:
      ConfigError: there is no text.
    """
    confusion_CC = np.asarray(sums.get("confusion", np.zeros((1, 1))))
    texts = float(confusion_CC.sum())
    if not texts:
        raise ConfigError("the validation split has no text to classify: prepare a larger one")
    return {
        ACCURACY.name: float(np.trace(confusion_CC)) / texts,
        MACRO_F1.name: float(np.nanmean(f1_of_classes(confusion_CC))),
        TEXT_LOSS.name: float(sums["nll"]) / texts,
        "validation/texts": texts,
    }


def wilson_interval(share: float, count: float) -> tuple[float, float]:
    """The bounds that hold a probability with 95 % confidence if it was observed as `share` of `count` trials.

    Unlike ± two standard errors, they are sensible near 0 and 1 (Wilson 1927, doi:10.1080/01621459.1927.10502953).
    """
    z = NORMAL_95**2 / count
    middle, reach = share + z / 2, math.sqrt(z * share * (1 - share) + z * z / 4)
    return max((middle - reach) / (1 + z), 0.0), min((middle + reach) / (1 + z), 1.0)


def confusion_table(confusion_CC: np.ndarray, labels: Sequence[str]) -> Table:
    """A row for each label: how many of its texts were classified as each label, and its F1. If there are many labels:
    the most frequent confusions."""
    if len(labels) > MOST_IN_TABLE:
        return _confusions(confusion_CC, labels)
    table = Table(
        "label", *(Column(Text(f"→ {label}")) for label in labels), "F1", title="labels, and what was predicted"
    )
    for label, row_C, f1 in zip(labels, confusion_CC, f1_of_classes(confusion_CC)):
        table.add_row(Text(label), *(f"{int(count):,}" for count in row_C), f"{f1:.4f}")
    return table


def _confusions(confusion_CC: np.ndarray, labels: Sequence[str]) -> Table:
    table = Table("label", "predicted", "texts", "of the label's", "F1 of the label", title="most frequent confusions")
    wrong_CC = np.asarray(confusion_CC) * (1 - np.eye(len(labels)))
    texts_C, f1_C = np.asarray(confusion_CC).sum(1), f1_of_classes(confusion_CC)
    for place in np.argsort(-wrong_CC, axis=None, kind="stable")[:MOST_CONFUSIONS]:
        label, predicted = divmod(int(place), len(labels))
        if count := int(wrong_CC[label, predicted]):
            share = f"{100 * count / texts_C[label]:.1f}%"
            table.add_row(Text(labels[label]), Text(labels[predicted]), f"{count:,}", share, f"{f1_C[label]:.4f}")
    return table


def write_confusion(folder: Path, confusion_CC: np.ndarray, labels: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Writes confusion.json, with `facts` such as the scores, and confusion.png into a folder."""
    content = {**facts, "labels": list(labels), "confusion": np.asarray(confusion_CC, int).tolist()}
    with write_aside(folder / "confusion.json") as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    plot_confusion(folder / "confusion.png", confusion_CC, labels)


def plot_confusion(path: Path, confusion_CC: np.ndarray, labels: Sequence[str]) -> None:
    """Draws the matrix with a row for each label. Colours show fractions of the row, and cells the number of texts."""
    from matplotlib.figure import Figure  # imported late because matplotlib is slow to import

    shares_CC = confusion_CC / np.maximum(confusion_CC.sum(1, keepdims=True), 1)
    size = min(2.5 + 0.6 * len(labels), MOST_INCHES)
    figure = Figure(figsize=(size + 0.5, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MOST_NAMED:
        names = [label.replace("$", "\\$") for label in labels]  # matplotlib would read $ as mathematics
        axes.set_xticks(range(len(labels)), names, rotation=90 if len(labels) > 12 else 45 if len(labels) > 4 else 0)
        axes.set_yticks(range(len(labels)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    for (row, column), count in np.ndenumerate(confusion_CC if len(labels) <= MOST_WRITTEN else np.zeros((0, 0))):
        color = "white" if shares_CC[row, column] > 0.5 else "black"
        axes.text(column, row, f"{int(count):,}", ha="center", va="center", color=color)
    with write_aside(path) as file:
        figure.savefig(file, format="png", dpi=150)  # type: ignore[arg-type]
