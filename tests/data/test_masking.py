"""The requested shares of tokens are hidden, and the same ones whenever and in whichever batch a row is read."""

import numpy as np
import pytest

from gptjax.data import open_dataset
from gptjax.data.masking import KINDS, Masking

EOS, BOS, WORDS = 0, 1, 50
SHAPE = 40, 500


def windows(seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, WORDS, SHAPE).astype(np.int32)
    tokens[rng.random(SHAPE) < 0.05] = EOS
    return {"tokens": tokens, "targets": np.roll(tokens, -1, 1), "weights": np.ones(SHAPE, np.float32)}


def masking(fraction=0.15, kind="bert", key=3):
    return Masking(fraction, kind, mask_id=WORDS, never=(EOS, BOS), key=key)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_hidden_masked_random_and_kept_tokens_are_the_requested_ones(kind):
    text = windows()["tokens"]
    rows = masking(kind=kind)(windows(), np.arange(SHAPE[0]))
    hidden = rows["weights"] == 1
    np.testing.assert_array_equal(rows["targets"], text)
    np.testing.assert_array_equal(rows["tokens"][~hidden], text[~hidden])
    assert not hidden[text == EOS].any()
    count = hidden.sum()
    assert abs(hidden[text != EOS].mean() - 0.15) < 0.01  # 4 standard deviations of 19,000 draws
    shown, masked, any_token = rows["tokens"][hidden], *KINDS[kind]
    assert abs((shown == WORDS).mean() - masked) < 0.03
    kept = (shown == text[hidden]).mean()
    assert abs(kept - (1 - masked - any_token) - any_token / WORDS) < 0.025
    if any_token:
        others = shown[(shown != WORDS) & (shown != text[hidden])]
        assert abs(len(others) / count - any_token) < 0.025
        assert len(set(others.tolist())) > 0.9 * WORDS and others.max() < WORDS
    assert hidden.any(1).all() and 0.1 < hidden.mean(1).min() < hidden.mean(1).max() < 0.2  # each row has its own draw
    assert abs(np.corrcoef(hidden[0], hidden[1])[0, 1]) < 0.15


def test_every_row_has_a_hidden_token_and_padding_is_never_hidden():
    few = {name: value[:, :6] for name, value in windows().items()}
    few["tokens"][0] = [EOS, 7, 8, EOS, 0, 0]
    few["weights"][0] = [1, 1, 1, 1, 0, 0]
    few["weights"][1] = 0
    few["weights"][2, 1] = 0  # the token that begins a document is neither a target nor padding
    rows = masking(fraction=1e-6)(few, np.arange(SHAPE[0]))
    assert rows["weights"].sum(1).tolist()[:2] == [1, 0] and (rows["weights"][2:].sum(1) == 1).all()
    assert rows["segments"][:3].tolist() == [[1, 1, 1, 1, 0, 0], [0] * 6, [1] * 6]
    everything = masking(fraction=1.0, kind="plain")(few, np.arange(SHAPE[0]))
    assert everything["tokens"][0].tolist() == [EOS, WORDS, WORDS, EOS, 0, 0]


@pytest.fixture
def opened(prepared, data_config):
    rng = np.random.default_rng(0)
    documents = [[*rng.integers(1, 255, length), EOS] for length in rng.integers(5, 60, 40)]
    folder = prepared(train=documents, validation=documents)

    def make(split="train", windows="packed", seed=5, batch_size=4, tokens=0):
        config = data_config(folder, sequence_length=32, windows=windows)
        return open_dataset(
            config,
            split,
            seed=seed,
            batch_size=batch_size,
            tokens=tokens,
            rewriting=lambda sources, weights: masking(key=seed if split == "train" else 0),
        )

    return make


@pytest.mark.parametrize("kind", ["packed", "contiguous"])
def test_training_rows_depend_only_on_seed_step_and_row(opened, kind):
    data = opened(windows=kind)
    whole = data.batch(7, np.arange(4))
    for row in range(4):
        for name, values in data.batch(7, np.array([row])).items():
            np.testing.assert_array_equal(values[0], whole[name][row])
    for workers in (0, 2) if kind == "packed" else (0,):
        (again,) = data.batches(7, np.arange(4), workers, num_steps=1)
        assert all(np.array_equal(again[name], whole[name]) for name in whole)
    assert not np.array_equal(opened(seed=6).batch(7, np.arange(4))["weights"], whole["weights"])

    # Each time that a window is read, other tokens of it are hidden.
    hidden = {}
    for step in range(3 * data.steps_per_epoch):
        batch = data.batch(step, np.arange(4))
        for text, weights in zip(batch["targets"], batch["weights"]):
            hidden.setdefault(text.tobytes(), set()).add(weights.tobytes())
    assert np.mean([len(draws) for draws in hidden.values()]) > 2.5


@pytest.mark.parametrize("kind", ["packed", "contiguous"])
def test_the_validation_split_hides_the_same_tokens_in_every_run(opened, kind):
    def rows(**options):
        data = opened("validation", windows=kind, **options)
        size = options.get("batch_size", 4)
        batches = [data.batch(step, np.arange(size)) for step in range(data.steps_per_epoch)]
        joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        return {name: values[: data.num_windows] for name, values in joined.items()}, data.identity()

    expected, identity = rows()
    for options in (dict(seed=9), dict(batch_size=7)):
        found, other = rows(**options)
        assert other == identity
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    sample, other = rows(tokens=96)
    assert other != identity
    np.testing.assert_array_equal(sample["weights"], expected["weights"][: len(sample["weights"])])


def test_the_fingerprint_contains_how_tokens_are_hidden(opened):
    facts = opened().fingerprint()["rewriting"]
    assert {name: facts[name] for name in ("fraction", "kind", "mask_id")} == dict(
        fraction=0.15, kind="bert", mask_id=WORDS
    )
