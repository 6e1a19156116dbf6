"""Rows of conversations: each is in one row, whole and alone, with weights where the assistant wrote."""

import pickle

import numpy as np
import pytest
from conversation_folder import random_conversations, write_conversations

from gptjax.config import ConfigError
from gptjax.data import open_dataset

CONVERSATIONS = random_conversations(50)


@pytest.fixture
def opened(tmp_path, data_config):
    made = {}

    def make(length, batch_size=1, seed=1, bos=False, **fields):
        if bos not in made:
            made[bos] = write_conversations(
                tmp_path / f"data{bos}", CONVERSATIONS, **{"tokens.bos": bos, "split.validation_fraction": 0.0}
            )
        folder, renderer = made[bos]
        config = data_config(folder, sequence_length=length, **fields)
        dataset = open_dataset(config, "train", seed=seed, batch_size=batch_size, windows="conversations")
        return dataset, renderer.render_batch(CONVERSATIONS)

    return make


def conversations_in(dataset):
    """(tokens, targets, weights) of every conversation of the first epoch, and the number of filled positions."""
    found, filled = [], 0
    for step in range(dataset.num_windows):
        row = {name: array[0] for name, array in dataset.batch(step, np.array([0])).items()}
        filled += (row["segments"] > 0).sum()
        assert (row["weights"][row["segments"] == 0] == 0).all() and row["weights"].sum() > 0
        for segment in range(1, row["segments"].max() + 1):
            here = row["segments"] == segment
            assert row["positions"][here].tolist() == list(range(here.sum()))
            found.append(tuple(row[name][here].tolist() for name in ("tokens", "targets", "weights")))
    return sorted(found), filled


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("loss_on", ["assistant", "all"])
def test_every_conversation_is_in_one_row_with_its_weights(opened, bos, loss_on):
    dataset, rendered = opened(400, bos=bos, loss_on=loss_on)
    found, filled = conversations_in(dataset)
    wanted = [
        (
            [dataset.begin_id, *each.ids[:-1].tolist()],
            each.ids.tolist(),
            (each.supervised if loss_on == "assistant" else np.ones(len(each.ids))).astype(float).tolist(),
        )
        for each in rendered
    ]
    assert [*map(tuple, found)] == sorted(map(tuple, wanted))
    assert (dataset.left_out, dataset.truncated) == (0, 0) and dataset.num_windows < len(rendered) / 2
    assert filled > 0.9 * dataset.num_windows * 400


def test_longer_conversations_lose_their_end_or_are_skipped_and_are_counted(opened):
    length = 100
    dataset, rendered = opened(length, too_long="truncate")
    found, _ = conversations_in(dataset)
    learned = [each for each in rendered if each.supervised[:length].any()]
    assert sorted(targets for _, targets, _ in found) == sorted(each.ids[:length].tolist() for each in learned)
    assert dataset.left_out == len(rendered) - len(learned) > 0
    assert dataset.truncated == sum(len(each.ids) > length for each in learned) > 0
    dataset, _ = opened(length, too_long="skip")
    found, _ = conversations_in(dataset)
    whole = [each.ids.tolist() for each in rendered if len(each.ids) <= length]
    assert sorted(targets for _, targets, _ in found) == sorted(whole)
    assert (dataset.left_out, dataset.truncated) == (len(rendered) - len(whole), 0)


def test_a_batch_without_a_supervised_token_cannot_be(opened):
    with pytest.raises(ConfigError, match=r"sequence_length = 20: none of the 50 conversations .* supervised token"):
        opened(20)
    dataset, _ = opened(20, loss_on="all")
    assert dataset.truncated == 50


def test_batches_are_a_function_of_seed_and_step(opened):
    data, _ = opened(300, batch_size=4)
    again = pickle.loads(pickle.dumps(opened(300, batch_size=4)[0]))
    for step in (0, 7):
        whole, alone = data.batch(step, np.arange(4)), again.batch(step, np.array([2]))
        assert all(np.array_equal(alone[name][0], whole[name][2]) for name in whole)
    prints = [
        opened(300, **fields)[0].identity() for fields in ({}, {"loss_on": "all"}, {"too_long": "skip"}, {"bos": True})
    ]
    assert len(set(prints)) == 4 and data.fingerprint()["template"]["name"] == "chatml"
    source, spans = data.spans(0, 1)
    targets = data.batch(0, np.array([1]))["targets"][0]
    for first, place, count in spans.tolist():
        assert (
            source.take_runs(np.array([place]), np.array([count])).tolist() == targets[first : first + count].tolist()
        )


def test_folders_of_two_templates_or_of_another_form_are_refused(tmp_path, data_config, prepared):
    both = []
    for template in ("chatml", "turns"):
        names = ["<|im_start|>", "<|im_end|>"]
        from gptjax.tokenizer import ByteTokenizer

        file = ByteTokenizer().extended(names).save(tmp_path)
        fields = {"template": template, "tokenizer.name": str(file)}
        both.append(write_conversations(tmp_path / template, CONVERSATIONS, **fields)[0])
    config = data_config(f"{both[0]}=0.5,{both[1]}=0.5", sequence_length=400)
    with pytest.raises(ConfigError, match="different templates"):
        open_dataset(config, "train", seed=0, batch_size=1, windows="conversations")
    config = data_config(both[0], sequence_length=400)
    with pytest.raises(ConfigError, match="conversations, which instruction reads"):
        open_dataset(config, "train", seed=0, batch_size=1)
