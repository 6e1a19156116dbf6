"""A row of labelled data is the beginning of one text with its label, in any batch."""

import functools

import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data import open_dataset
from gptjax.data.labelled import LabelledRows, class_weights
from gptjax.data.tokens import TokenSource
from gptjax.tokenizer import ByteTokenizer

TEXTS = [[10, 11], [20, 21, 22, 23, 24, 25], [30], [40, 41, 42]]


@pytest.fixture
def folder(prepared):
    def make(bos=False, labels=("a", "b"), name="data"):
        tokenizer = ByteTokenizer()
        documents = [[*([tokenizer.bos_id] if bos else []), *text, tokenizer.eos_id] for text in TEXTS]
        return prepared(name, train=documents, validation=documents, labels=labels, bos=bos, shard_tokens=5), tokenizer

    return make


@pytest.mark.parametrize("bos", [False, True])
def test_a_row_has_the_begin_token_and_the_beginning_of_one_text(folder, bos):
    path, tokenizer = folder(bos)
    rows = LabelledRows(TokenSource(path, "train"), 4)
    begin = tokenizer.bos_id if bos else tokenizer.eos_id
    batch = rows.gather(np.array([3, 0, 1]))
    assert batch["tokens"].tolist() == [[begin, 40, 41, 42], [begin, 10, 11, 0], [begin, 20, 21, 22]]
    assert batch["segments"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [1, 0, 1] and batch["weights"].tolist() == [1, 1, 1]
    assert (len(rows), rows.truncated) == (4, 1)


def test_batches_are_a_function_of_seed_and_step_and_padded_with_rows_without_weight(folder, data_config):
    path, _ = folder()

    def opened(split, seed=0, batch_size=3):
        config = data_config(path, sequence_length=8)
        return open_dataset(config, split, seed=seed, batch_size=batch_size, windows="labelled")

    data = opened("train")
    assert (data.num_windows, data.num_classes, data.labels, data.truncated) == (4, 2, ["a", "b"], 0)
    seen = np.concatenate([data.batch(step, np.arange(3))["tokens"][:, 1] for step in range(4)])
    assert all(sorted(epoch) == [10, 20, 30, 40] for epoch in seen.reshape(3, 4).tolist())
    for row in range(3):
        alone, whole = data.batch(2, np.array([row])), data.batch(2, np.arange(3))
        assert all(np.array_equal(alone[name][0], whole[name][row]) for name in whole)
    validation = opened("validation")
    assert validation.batch(1, np.arange(3))["weights"].tolist() == [1, 0, 0]
    assert opened("validation", seed=7, batch_size=2).identity() == validation.identity()
    assert data.fingerprint()["labels"] == ["a", "b"] and "labels" not in _text(path, data_config).fingerprint()


def test_balanced_weights_give_every_label_the_same_weight_in_a_mixture(folder, prepared, data_config):
    """2 of 4 texts of one folder have label b, and 1 of 3 of another, which is read three times as often."""
    path, tokenizer = folder()
    other = prepared("more", train=[[7, tokenizer.eos_id]] * 3, labels=("a", "b"), tokenizer=tokenizer)
    for paths, share_of_b in ((path, 1 / 2), (f"{path}=0.25,{other}=0.75", 0.25 / 2 + 0.75 / 3)):
        balanced = functools.partial(class_weights, "balanced")
        config = data_config(paths, sequence_length=8)
        data = open_dataset(config, "train", seed=0, batch_size=400, windows="labelled", rewriting=balanced)
        expected = [0.5 / (1 - share_of_b), 0.5 / share_of_b]
        np.testing.assert_allclose(data.fingerprint()["rewriting"]["class_weights"], expected)
        rows = data.batch(0, np.arange(400))
        np.testing.assert_allclose(rows["weights"], np.array(expected, np.float32)[rows["labels"]])
        weight_of_b = rows["weights"][rows["labels"] == 1].sum() / rows["weights"].sum()
        assert abs(weight_of_b - 0.5) < 0.01


def _text(path, data_config):
    """The same folder as plain text, which the other objectives read."""
    return open_dataset(data_config(path, sequence_length=8), "train", seed=0, batch_size=2)


def test_other_folders_are_refused(folder, prepared, data_config):
    path, tokenizer = folder()
    other, _ = folder(labels=("a", "c"), name="other")
    text = prepared("text", train=[[5, tokenizer.eos_id]])
    for paths, message in ((text, "reads labelled"), (f"{path},{other}", "have different labels")):
        with pytest.raises(ConfigError, match=message):
            open_dataset(data_config(paths, sequence_length=8), "train", seed=0, batch_size=2, windows="labelled")
