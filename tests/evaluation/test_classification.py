"""Accuracy and macro-F1 equal scikit-learn's; the confusion matrix is written unchanged."""

import json

import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.evaluation.classification import (
    confusion_table,
    f1_of_classes,
    scores_of_classes,
    wilson_interval,
    write_confusion,
)

CONFUSION = np.array([[50, 3, 2], [4, 20, 0], [1, 0, 0]])


def test_scores_by_hand():
    # correct: 50, 20, 0; of the class: 55, 24, 1; classified as it: 55, 23, 2
    f1 = [100 / 110, 40 / 47, 0 / 3]
    np.testing.assert_allclose(f1_of_classes(CONFUSION), f1)
    scores = scores_of_classes({"confusion": CONFUSION, "nll": 40.0})
    assert scores == pytest.approx(
        {
            "validation/accuracy": 70 / 80,
            "validation/macro_f1": np.mean(f1),
            "validation/loss": 0.5,
            "validation/texts": 80,
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 4, (2, 30))
    truth[truth == 3] = 2  # a class that does not occur but may be predicted
    predicted[predicted == 3] = 3 if seed % 2 else 0  # or neither occurs nor is predicted
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (truth, predicted), 1)
    scores = scores_of_classes({"confusion": confusion, "nll": 0.0})
    assert scores["validation/accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    expected = metrics.f1_score(truth, predicted, average="macro", zero_division=0)
    assert scores["validation/macro_f1"] == pytest.approx(expected)


def test_a_set_without_texts_cannot_be_scored():
    with pytest.raises(ConfigError, match="no text to classify"):
        scores_of_classes({})


def test_the_matrix_is_written_and_drawn(tmp_path):
    write_confusion(tmp_path, CONFUSION, ["ham", "spam", "other"], {"accuracy": 0.875})
    content = json.loads((tmp_path / "confusion.json").read_text())
    assert content == {"accuracy": 0.875, "labels": ["ham", "spam", "other"], "confusion": CONFUSION.tolist()}
    assert (tmp_path / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_the_matrix_of_many_labels_is_a_list_of_confusions_and_a_picture_of_bounded_size(tmp_path):
    labels = [f"label {number}" for number in range(300)]
    confusion = np.diag(np.full(300, 5))
    confusion[[7, 250], [250, 3]] = 4, 5
    write_confusion(tmp_path, confusion, labels, {})
    width = int.from_bytes((tmp_path / "confusion.png").read_bytes()[16:20])
    assert width < 4000
    table = confusion_table(confusion, labels)
    assert [list(map(str, column.cells)) for column in table.columns[:4]] == [
        ["label 250", "label 7"],
        ["label 3", "label 250"],
        ["5", "4"],
        ["50.0%", "44.4%"],
    ]


@pytest.mark.parametrize("right, count", [(287, 300), (20, 20), (0, 7)])
def test_the_interval_of_an_accuracy_is_that_of_scipy(right, count):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)
