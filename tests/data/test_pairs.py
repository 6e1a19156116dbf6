"""Rows of pairs: every pair occurs once, complete and separate from the others, with any number of readers."""

import pickle

import numpy as np
import pytest
from prepared_folders import write_prepared

from gptjax.config import ConfigError
from gptjax.data import open_dataset
from gptjax.data.facts import DataFacts, read_facts
from gptjax.data.pair_index import best_fit_of_two
from gptjax.tokenizer import ByteTokenizer, CharacterTokenizer

EOS, BOS = ByteTokenizer().eos_id, ByteTokenizer().bos_id


def random_pairs(count, longest, seed=0):
    """Pairs of which no two are equal: the first two tokens of each side are the pair's number."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(0, longest - 2, (count, 2)).tolist()
    sides = [
        [[9 + n // 250, 9 + n % 250, *draw.integers(9, 265, length)] for length in both]
        for n, both in enumerate(lengths)
    ]
    return [(source, target) for source, target in sides]


def stream(pairs, bos=False):
    before = [BOS] if bos else []
    return [[*before, *side, EOS] for pair in pairs for side in pair]


@pytest.fixture
def folder(tmp_path):
    def make(pairs, name="pairs", bos=False, **more):
        return write_prepared(tmp_path / name, train=stream(pairs, bos), bos=bos, form="pairs", **more)

    return make


def rows_of(dataset):
    """All rows of the first epoch."""
    rows = [dataset.batch(step, np.array([0])) for step in range(dataset.num_windows)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("lengths", [(40, 40), (20, 60), (0, 33)])
def test_every_pair_is_in_one_row_unchanged(folder, data_config, lengths, bos):
    pairs = random_pairs(300, 20)
    path = folder(pairs, bos=bos)
    config = data_config(path, source_length=lengths[0], sequence_length=lengths[1])
    dataset = open_dataset(config, "train", seed=1, batch_size=1, windows="pairs")
    S, T = lengths[0] or lengths[1], lengths[1]
    found, rows = [], rows_of(dataset)
    assert rows["source"].shape == (dataset.num_windows, S) and rows["tokens"].shape == (dataset.num_windows, T)
    for i in range(dataset.num_windows):
        row = {name: values[i] for name, values in rows.items()}
        count = row["segments"].max()
        assert count == row["source_segments"].max() >= 1
        for segments, values in (
            (row["source_segments"], ("source", "source_positions")),
            (row["segments"], ("tokens", "targets", "positions", "weights")),
        ):
            padding = segments == 0
            assert (np.diff(segments[~padding]) >= 0).all() and padding[(~padding).sum() :].all()
            assert all((row[name][padding] == 0).all() for name in values)
        assert (row["weights"] == (row["segments"] > 0)).all() and row["weights"].dtype == np.float32
        for segment in range(1, count + 1):
            ours, theirs = row["source_segments"] == segment, row["segments"] == segment
            targets = row["targets"][theirs].tolist()
            assert row["tokens"][theirs].tolist() == [BOS if bos else EOS, *targets[:-1]]
            for positions in (row["source_positions"][ours], row["positions"][theirs]):
                assert positions.tolist() == list(range(len(positions)))
            found.append((row["source"][ours].tolist(), targets))
    assert sorted(found) == sorted(([*source, EOS], [*target, EOS]) for source, target in pairs)
    assert dataset.left_out == 0


@pytest.mark.parametrize("bos", [False, True])
def test_a_completion_follows_its_source_and_only_it_is_learned(folder, data_config, bos):
    pairs = random_pairs(200, 20)
    config = data_config(folder(pairs, bos=bos), sequence_length=45)
    dataset = open_dataset(config, "train", seed=1, batch_size=1, windows="completions")
    found, rows = [], rows_of(dataset)
    between = [BOS] if bos else []
    for tokens, targets, weights, segments, positions in zip(
        *(rows[name] for name in ("tokens", "targets", "weights", "segments", "positions"))
    ):
        assert (weights[segments == 0] == 0).all()
        for segment in range(1, segments.max() + 1):
            here = segments == segment
            whole, learned = targets[here].tolist(), targets[here & (weights == 1)].tolist()
            assert positions[here].tolist() == list(range(len(whole)))
            assert tokens[here].tolist() == [BOS if bos else EOS, *whole[:-1]]
            found.append((whole[: len(whole) - len(learned)], learned))
    assert sorted(found) == sorted(([*source, EOS, *between], [*target, EOS]) for source, target in pairs)


def test_longer_pairs_are_counted_and_never_cut(folder, data_config):
    pairs = [([9] * 10, [9] * 4), ([9] * 4, [9] * 10), ([9] * 7, [9] * 7), ([9] * 3, [9] * 3)]
    path = folder(pairs)
    for windows, lengths, left in [
        ("pairs", {"source_length": 8, "sequence_length": 8}, 2),
        ("pairs", {"source_length": 11, "sequence_length": 8}, 1),
        ("pairs", {"sequence_length": 11}, 0),
        ("completions", {"sequence_length": 15}, 1 + 2),
        ("completions", {"sequence_length": 16}, 0),
    ]:
        dataset = open_dataset(data_config(path, **lengths), "train", seed=0, batch_size=1, windows=windows)
        assert dataset.left_out == left
    with pytest.raises(ConfigError, match=r"data\.source_length = 3, data\.sequence_length = 9: none of the 4 pairs"):
        config = data_config(path, source_length=3, sequence_length=9)
        open_dataset(config, "train", seed=0, batch_size=1, windows="pairs")


@pytest.mark.parametrize("windows", ["pairs", "completions"])
def test_batches_are_a_function_of_seed_and_step(folder, data_config, windows):
    config = data_config(folder(random_pairs(300, 20)), sequence_length=64)
    dataset = open_dataset(config, "train", seed=3, batch_size=4, windows=windows)
    whole = [dataset.batch(step, np.arange(4)) for step in range(9)]
    again = pickle.loads(pickle.dumps(dataset))
    for step in (7, 2):  # two processes with half of the rows each, and another order of steps
        halves = [again.batch(step, rows) for rows in (np.array([0, 1]), np.array([2, 3]))]
        for name, values in whole[step].items():
            np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), values)
    resumed = list(dataset.batches(5, np.arange(4), num_steps=4))
    for one, other in zip(resumed, whole[5:]):
        assert all((one[name] == other[name]).all() for name in one)
    other_seed = open_dataset(config, "train", seed=4, batch_size=4, windows=windows)
    assert any((other_seed.batch(step, np.arange(4))["tokens"] != whole[step]["tokens"]).any() for step in range(3))
    assert other_seed.identity() == dataset.identity() and other_seed.fingerprint() != dataset.fingerprint()
    config.sequence_length = 65
    assert open_dataset(config, "train", seed=3, batch_size=4, windows=windows).identity() != dataset.identity()


def test_loader_processes_do_not_change_batches(folder, data_config):
    config = data_config(folder(random_pairs(100, 20)), sequence_length=64)
    dataset = open_dataset(config, "train", seed=3, batch_size=2, windows="pairs")
    alone, beside = (list(dataset.batches(0, np.arange(2), workers=n, num_steps=4)) for n in (0, 2))
    for one, other in zip(alone, beside, strict=True):
        assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_spans_are_the_places_of_the_targets(folder, data_config):
    config = data_config(folder(random_pairs(50, 20)), sequence_length=64)
    for windows in ("pairs", "completions"):
        dataset = open_dataset(config, "train", seed=3, batch_size=1, windows=windows)
        source, spans = dataset.spans(0, 0)
        targets = dataset.batch(0, np.array([0]))["targets"][0]
        for first, place, length in spans.tolist():
            read = source.take_runs(np.array([place]), np.array([length]))
            assert targets[first : first + length].tolist() == read.tolist()


def test_objectives_refuse_forms_that_they_do_not_read(folder, prepared, data_config):
    pairs, text = folder(random_pairs(9, 9)), prepared("text", train=[[9, 9, EOS]])
    with pytest.raises(ConfigError, match=r"data\.path = .*holds pairs, which seq2seq, completion, grpo and on"):
        open_dataset(data_config(pairs), "train", seed=0, batch_size=1)
    for windows in ("pairs", "completions"):
        with pytest.raises(ConfigError, match=r"data\.path = .*holds text, which next_token and masked read"):
            open_dataset(data_config(text), "train", seed=0, batch_size=1, windows=windows)


def test_two_vocabularies_need_two_stacks(folder, data_config):
    own = CharacterTokenizer("".join(map(chr, range(60, 260))))
    path = folder([([20, 21], [30]), ([22], [31])], source_tokenizer=own)
    config = data_config(path, sequence_length=16)
    assert read_facts(config, "pairs") == DataFacts(265, 1, source_vocab_size=own.vocab_size)
    found = open_dataset(config, "train", seed=0, batch_size=1, windows="pairs").fingerprint()
    assert found["source_tokenizer_hash"] == own.hash != found["tokenizer_hash"]
    with pytest.raises(ConfigError, match="have two vocabularies"):
        open_dataset(config, "train", seed=0, batch_size=1, windows="completions")


@pytest.mark.parametrize("shape", [(64, 64), (64, 32), (300, 20)])
def test_rows_are_well_filled_and_never_too_long(shape):
    S, T = shape
    draw = np.random.default_rng(0)
    targets = draw.integers(2, T // 2, 3000)
    sources = np.clip((targets * S / T * draw.uniform(0.7, 1.3, 3000)).astype(int), 1, S)
    row_of, num_rows = best_fit_of_two(sources, targets, S, T)
    assert np.unique(row_of).tolist() == list(range(num_rows))
    filled = [np.bincount(row_of, side, num_rows) for side in (sources, targets)]
    assert filled[0].max() <= S and filled[1].max() <= T
    assert max(filled[0].mean() / S, filled[1].mean() / T) > 0.9
    assert best_fit_of_two(sources[:0], targets[:0], S, T)[1] == 0
