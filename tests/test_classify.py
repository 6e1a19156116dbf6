"""The classify command: labels of new texts, scores of a folder, and errors."""

import json

import numpy as np
import pytest
from commands import run_command, typed_command
from prepared_folders import write_prepared

from gptjax.tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
FLAGS = (
    *("--config.model.family=classifier", "--config.training.objective=classification"),
    *("--config.model.num_layers=1", "--config.model.width=16", "--config.model.num_heads=2"),
    *("--config.data.sequence_length=16", "--config.training.batch_size=16", "--config.training.duration=40 steps"),
    *("--config.optimizer.learning_rate=0.01", "--config.evaluation.every=20 steps", "--config.logging.plots=False"),
)


def write_folder(path, labels=("ham", "spam")):
    texts = [f"{'ab' * (i % 7)}{'xy'[i % 2]}{'cd' * (i % 3)}" for i in range(60)]
    ids = [[*TOKENIZER.encode(text), TOKENIZER.eos_id] for text in texts]
    return write_prepared(path, train=ids[:40], validation=ids[40:], labels=labels, tokenizer=TOKENIZER)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    write_folder(folder / "data")
    result = typed_command(
        "train",
        "--config=configs/text_tiny.py",
        f"--config.data.path={folder}/data",
        "--config.evaluation.sample_every=",
        f"--workdir={folder}/run",
        *FLAGS,
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_labels_of_texts(trained):
    (trained / "texts.txt").write_text("abycd\nababx\n" + "ab" * 20 + "\n")
    result = run_command(
        "classify",
        f"--workdir={trained}/run",
        "--text=x",
        f"--texts_file={trained}/texts.txt",
        f"--json={trained}/labels.json",
        "--batch_size=2",
    )
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[:3]] == ["ham", "spam", "ham"] and [line[2] for line in lines][1] == "abycd"
    assert all(0.5 <= float(line[1]) <= 1 for line in lines)
    assert "1 of 4 texts truncated to 16 tokens" in result.stderr
    rows = json.loads((trained / "labels.json").read_text())
    assert [row["label"] for row in rows] == [line[0] for line in lines]
    np.testing.assert_allclose([sum(row["probabilities"].values()) for row in rows], 1, atol=1e-5)


def test_scores_of_a_folder(trained):
    result = run_command("classify", f"--workdir={trained}/run", f"--data={trained}/data", "--split=validation")
    assert "20 texts: accuracy 1.0000 (95% interval 0.839 to 1.000), macro-F1 1.0000" in result.stdout
    assert "1 text truncated to 16 tokens" in result.stdout
    found = json.loads((trained / "run" / "classification" / "confusion.json").read_text())
    assert found["confusion"] == [[10, 0], [0, 10]] and found["labels"] == ["ham", "spam"]
    assert (trained / "run" / "classification" / "confusion.png").exists()


def test_mismatched_labels_and_splits_are_refused(trained, tmp_path):
    write_folder(tmp_path / "other", labels=("ham", "egg"))
    run = f"--workdir={trained}/run"
    for flags, message in (
        ((run,), "give texts"),
        ((run, "--text=x", "--data=d"), "give texts"),
        ((run, "--text=x", "--text= "), "text 2 is empty: there is nothing to classify"),
        ((run, "--texts_file=texts.csv"), "--texts_file=texts.csv: is a table, and must have one text per line"),
        ((run, f"--data={tmp_path}/other", "--split=validation"), "the run does not know egg"),
        ((run, f"--data={trained}/data"), "has no test split"),
    ):
        result = run_command("classify", *flags)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
