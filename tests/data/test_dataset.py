import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prepared_folders import random_documents
from waiting import until

from gptjax.config import ConfigError, RunError, default, to_json
from gptjax.data import loaders, open_dataset
from gptjax.tokenizer import CharacterTokenizer
from gptjax.training.checkpoints.run_metadata import check_compatible

T, B = 8, 4
ROWS = np.arange(B)
BOTH = pytest.mark.parametrize("windows", ["contiguous", "packed"])


@pytest.fixture
def folder(prepared):
    """Eleven contiguous windows (8·11 tokens) for training and five and a half for validation, in three shards."""
    return prepared(
        train=[np.arange(40), np.arange(40, 88)], validation=[np.arange(100, 120), np.arange(120, 145)], shard_tokens=30
    )


@pytest.fixture
def open_(data_config):
    def open_(path, split="train", *, seed=0, batch_size=B, tokens=0, **fields):
        fields = {"sequence_length": T} | fields
        return open_dataset(data_config(path, **fields), split, seed=seed, batch_size=batch_size, tokens=tokens)

    return open_


def same(a, b):
    return a.keys() == b.keys() and all((a[name] == b[name]).all() and a[name].dtype == b[name].dtype for name in a)


def first_tokens(dataset, steps, rows=ROWS):
    """The first targets of rows, which identify the contiguous windows of these folders."""
    return np.concatenate([dataset.batch(step, rows)["targets"][:, 0] for step in range(steps)])


def test_an_epoch_has_every_window_once_in_a_new_order(folder, open_):
    dataset = open_(folder)
    assert (dataset.num_windows, dataset.num_tokens, dataset.steps_per_epoch) == (11, 88, 3)
    stream = first_tokens(dataset, 11)  # 44 rows: four epochs, whose boundaries are inside batches
    epochs = stream.reshape(4, 11).tolist()
    assert all(sorted(epoch) == list(range(0, 88, T)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != sorted(epochs[0])


@BOTH
def test_the_stream_is_a_function_of_seed_and_step(folder, open_, windows):
    one, again, other = (open_(folder, windows=windows, seed=seed) for seed in (1, 1, 2))
    wanted = [one.batch(step, ROWS) for step in range(20)]
    for step in (17, 3, 0, 19):  # in any order
        assert same(again.batch(step, ROWS), wanted[step])
    assert not all(same(other.batch(step, ROWS), wanted[step]) for step in range(20))
    for start in (0, 7):
        ahead = list(again.batches(start, ROWS, workers=0, num_steps=5))
        assert len(ahead) == 5 and all(same(a, b) for a, b in zip(ahead, wanted[start : start + 5]))


@BOTH
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_each_process_reads_its_rows_of_the_same_batch(folder, open_, windows, processes):
    dataset = open_(folder, windows=windows, seed=3)
    for rows in (np.array_split(ROWS, processes), [ROWS[p::processes] for p in range(processes)]):
        for step in range(5):
            whole = dataset.batch(step, ROWS)
            for mine in rows:
                assert same(dataset.batch(step, mine), {name: values[mine] for name, values in whole.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.exhaustive), 2, pytest.param(4, marks=pytest.mark.exhaustive)]
)
def test_loader_processes_do_not_change_batches(folder, prepared, open_, workers):
    other = prepared("other", train=random_documents(30, 20))
    dataset = open_(f"{folder}=0.6,{other}=0.4", windows="packed", seed=5)
    start, rows = 6, np.array([3, 1])
    batches = dataset.batches(start, rows, workers=workers, num_steps=40)
    made = [next(batches) for _ in range(workers)]  # all have started
    for process, number in zip(multiprocessing.active_children(), (signal.SIGTERM, signal.SIGHUP)):
        os.kill(process.pid, number)  # Slurm and terminals send it to all processes; the trainer has yet to save
    made += batches
    assert len(made) == 40
    for step, batch in enumerate(made, start):
        assert same(batch, dataset.batch(step, rows))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            signal.SIGKILL,
            r"a loader process \(data\.workers\) has ended: it was killed, perhaps because memory ran out",
        ),
        (signal.SIGSEGV, r"a loader process \(data\.workers\) has ended with exit status -11"),
        (signal.SIGSTOP, r"the loader processes \(data\.workers\) have given no batch for 2 s: one hangs"),
    ],
)
def test_a_loader_process_that_dies_or_hangs_ends_the_run_with_a_sentence(folder, open_, monkeypatch, number, message):
    batches = open_(folder).batches(0, ROWS, workers=2)
    for _ in range(2):  # until both have started, which takes longer
        next(batches)
    monkeypatch.setattr(loaders, "SILENCE", 2)
    os.kill(multiprocessing.active_children()[0].pid, number)
    with pytest.raises(RunError, match=rf"{message}.*; the same command resumes from the last checkpoint"):
        for _ in range(100):
            next(batches)


PARENT = """
import multiprocessing, os, time
from gptjax.data.loaders import depend_on_the_parent

def load():
    depend_on_the_parent()
    print(os.getpid(), flush=True)
    time.sleep(3600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=load).start()
    time.sleep(3600)
"""


def test_a_loader_process_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], env=environment, stdout=subprocess.PIPE, text=True
    )
    with parent.stdout:
        loader = Path("/proc") / parent.stdout.readline().strip()
        assert loader.exists()
        parent.kill()
        parent.wait()
        until(lambda: not loader.exists())


def test_validation_has_every_window_once_in_one_shuffled_order(folder, open_):
    dataset = open_(folder, "validation", batch_size=4)
    assert (dataset.num_windows, dataset.steps_per_epoch) == (6, 2)
    batches = list(dataset.batches(0, ROWS, workers=0))
    assert len(batches) == 2 and same(batches[1], dataset.batch(1, ROWS))
    weights = np.concatenate([batch["weights"] for batch in batches])
    targets = np.concatenate([batch["targets"] for batch in batches])
    assert sorted(targets[weights == 1].tolist()) == list(range(100, 145)), "every token once"
    assert targets[weights == 1].tolist() != list(range(100, 145)), "the first batches are not the first document"
    assert batches[1]["tokens"].shape == (4, T) and not batches[1]["tokens"][2:].any(), "padded, not dropped"
    # A process may have only rows of padding.
    assert not dataset.batch(1, np.array([2, 3]))["weights"].any()
    with pytest.raises(IndexError, match="step 2: this split has steps 0 to 1"):
        dataset.batch(2, ROWS)


def supervised(dataset, batch_size=B):
    batches = dataset.batches(0, np.arange(batch_size))
    return [target for batch in batches for target in batch["targets"][batch["weights"] == 1].tolist()]


@BOTH
def test_a_validation_sample_does_not_depend_on_seed_batch_size_or_order_of_folders(prepared, open_, windows):
    folders = [
        prepared(name, train=[[1, 2]], validation=random_documents(40, 30, seed)) for seed, name in enumerate("ab")
    ]
    path, other_way = f"{folders[0]}=0.9,{folders[1]}=0.1", f"{folders[1]},{folders[0]}"
    drawn = open_(path, "validation", windows=windows, tokens=20 * T - 3)
    assert drawn.num_windows == 20 < open_(path, "validation", windows=windows).num_windows
    wanted = supervised(drawn)
    assert sorted({int(target) for target in wanted}) != wanted, "from all over the split"
    for same_draw, batch_size in (
        (open_(path, "validation", windows=windows, tokens=20 * T, seed=5, batch_size=7), 7),
        (open_(other_way, "validation", windows=windows, tokens=20 * T, batch_size=64), 64),
    ):
        assert supervised(same_draw, batch_size) == wanted and same_draw.identity() == drawn.identity()
    larger = open_(path, "validation", windows=windows, tokens=24 * T)
    assert supervised(larger)[: len(wanted)] == wanted and larger.identity() != drawn.identity()
    everything = open_(path, "validation", windows=windows, tokens=10**9)
    assert everything.identity() == open_(path, "validation", windows=windows).identity()


def test_packed_validation_is_padded_with_segment_0(folder, open_):
    dataset = open_(folder, "validation", windows="packed", batch_size=8)
    batch = dataset.batch(0, np.arange(8))
    assert batch["weights"].sum() == 45
    assert dataset.num_windows == 6 and not batch["segments"][6:].any()
    assert dataset.batch(0, np.array([7]))["segments"].tolist() == [[0] * T]


def test_rows_beyond_the_batch_are_refused(folder, open_):
    with pytest.raises(IndexError, match="rows 0 to 4: a batch has rows 0 to 3"):
        open_(folder).batch(0, np.arange(5))


def test_a_mixture_draws_by_weight_and_each_source_keeps_its_epochs(folder, prepared, open_):
    other = prepared("other", train=[np.arange(1000, 1000 + 5 * T)])
    dataset = open_(f"{folder}=3,{other}=1", batch_size=4)
    stream = first_tokens(dataset, 55)
    assert np.count_nonzero(stream >= 1000) == 55
    for source, windows in ((stream[stream < 1000], 11), (stream[stream >= 1000] - 1000, 5)):
        for epoch in source[: len(source) // windows * windows].reshape(-1, windows):
            assert sorted(epoch) == list(range(0, windows * T, T))
    assert dataset.num_tokens == 88 + 40 and dataset.num_windows == 16


def test_a_mixture_without_weights_draws_by_size(folder, prepared, open_):
    other = prepared("other", train=[np.arange(1000, 1000 + 22 * T)])
    stream = first_tokens(open_(f"{folder},{other}"), 33)  # 132 rows: four epochs of 11 + 22 windows
    assert np.count_nonzero(stream >= 1000) == 88


def test_validation_of_a_mixture_has_every_window_of_each_source(folder, prepared, open_):
    other = prepared("other", train=[np.arange(50)], validation=[np.arange(1000, 1000 + 2 * T)])
    dataset = open_(f"{folder}=0.9,{other}=0.1", "validation")
    batches = list(dataset.batches(0, ROWS, workers=0))
    targets = np.concatenate([batch["targets"][batch["weights"] == 1] for batch in batches])
    assert sorted(targets.tolist()) == [*range(100, 145), *range(1000, 1016)]


def test_sources_of_equal_size_have_different_orders(folder, prepared, open_):
    twin = prepared("twin", train=[np.arange(1000, 1088)], shard_tokens=30)
    alone, other = (first_tokens(open_(path, seed=4), 3).tolist() for path in (folder, twin))
    assert alone == [token - 1000 for token in other]
    mixed = first_tokens(open_(f"{folder}=1,{twin}=1", seed=4), 6).tolist()
    assert [token for token in mixed if token < 1000] != [token - 1000 for token in mixed if token >= 1000]


def test_tokenizers_must_agree(folder, prepared, open_):
    other = prepared("other", train=[np.arange(50) % 9], tokenizer=CharacterTokenizer("abc"))
    with pytest.raises(
        ConfigError, match=r"data has tokenizer \w{32}, .*other has \w{32}: prepare one with --tokenizer"
    ):
        open_(f"{folder}=1,{other}=1")


def test_a_dataset_knows_its_vocabulary(folder, open_):
    dataset = open_(folder)
    assert (dataset.vocab_size, dataset.eos_id, len(dataset.tokenizer_hash)) == (9 + 256, 2, 32)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"windows": "sliding"}, r"data\.windows = 'sliding': expected one of contiguous, packed"),
        ({"sequence_length": 0}, r"data\.sequence_length = 0: must be at least 1"),
        ({"split": "tset"}, r"split = 'tset': expected one of train, validation, test"),
        ({"split": "test"}, "has no test split, only train, validation"),
        ({"batch_size": 0}, r"training\.batch_size = 0: must be at least 1"),
    ],
)
def test_invalid_settings_are_refused(folder, open_, fields, message):
    with pytest.raises(ConfigError, match=message):
        open_(folder, **fields)


def test_equal_data_have_equal_fingerprints_in_any_folder(folder, open_):
    moved = folder.rename(folder.with_name("moved"))
    saved = json.loads(json.dumps(open_(moved).fingerprint()))
    assert open_(moved.rename(folder)).fingerprint() == saved


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch_size": 2}, {"sequence_length": 4}, {"windows": "packed"}, {"split": "validation"}]
)
def test_a_fingerprint_contains_every_setting_of_the_stream(folder, open_, change):
    ((name, value),) = change.items()
    before, now = open_(folder).fingerprint(), open_(folder, **change).fingerprint()
    assert before[name] != now[name] == value


def test_a_fingerprint_contains_the_order(folder, open_, monkeypatch):
    """If only the program's order of data has changed, the run is refused, too."""
    saved = {"step": 5, "config": json.loads(to_json(default())), "fingerprint": open_(folder).fingerprint()}
    check_compatible(saved, default(), open_(folder).fingerprint())
    monkeypatch.setattr("gptjax.data.order.VERSION", "another")
    with pytest.raises(ConfigError, match="data: order: was feistel-10, is now another"):
        check_compatible(saved, default(), open_(folder).fingerprint())
    del saved["fingerprint"]["order"]
    with pytest.raises(ConfigError, match="data: order: was not set, is now another"):
        check_compatible(saved, default(), open_(folder).fingerprint())


def test_a_fingerprint_contains_the_data_the_tokenizer_and_the_mixture(folder, prepared, open_):
    saved = open_(folder).fingerprint()
    altered = prepared("altered", train=[np.arange(40), np.arange(41, 89)], shard_tokens=30)
    before, now = (found["sources"][0]["files"] for found in (saved, open_(altered).fingerprint()))
    assert before[1]["name"] == now[1]["name"] and before[1]["hash"] != now[1]["hash"]
    other = prepared("other", train=[np.arange(88)], tokenizer=CharacterTokenizer("abc"))
    assert open_(other).fingerprint()["tokenizer_hash"] != saved["tokenizer_hash"]
    assert [source["weight"] for source in open_(f"{folder}=3,{altered}=1").fingerprint()["sources"]] == [0.75, 0.25]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_negative_steps_and_rows_are_refused(folder, open_, split):
    dataset = open_(folder, split)
    with pytest.raises(IndexError, match="step -1"):
        dataset.batch(-1, ROWS)
    with pytest.raises(IndexError, match="rows -1 to 2"):
        dataset.batch(0, np.arange(-1, 3))


def test_batches_of_the_validation_split_end_with_it(folder, open_):
    dataset = open_(folder, "validation")
    assert dataset.steps_per_epoch == 2
    assert [len(list(dataset.batches(0, ROWS, num_steps=steps))) for steps in (1, 2, 9)] == [1, 2, 2]
    assert len(list(dataset.batches(1, ROWS, num_steps=9))) == 1


def test_only_the_validation_split_is_sampled(folder, open_):
    assert open_(folder, tokens=T).num_windows == 11
    assert open_(folder, "validation", tokens=T).num_windows == 1


def test_epochs_are_counted_per_folder(folder, prepared, open_):
    other = prepared("other", train=[np.arange(1000, 1000 + 5 * T)])
    dataset = open_(f"{folder}=3,{other}=1", batch_size=4)
    assert dataset.epochs(55) == {str(folder): 165 / 11, str(other): 55 / 5}


def test_a_span_is_in_the_source_of_its_row(folder, prepared, open_):
    other = prepared("other", train=[np.arange(1000, 1000 + 4 * T)])
    dataset = open_(f"{folder},{other}", batch_size=15)
    for row, target in enumerate(dataset.batch(0, np.arange(15))["targets"][:, 0].tolist()):
        source, spans = dataset.spans(0, row)
        assert (str(source.folder), spans.tolist()) == (
            str(other if target >= 1000 else folder),
            [[0, target % 1000, T]],
        )


def test_documents_of_a_mixture_begin_after_the_same_token(folder, prepared, open_):
    """That is BOS or EOS; a run's fingerprint contains which."""
    other = prepared("other", train=[[1, *range(50, 90)]], bos=True)
    with pytest.raises(ConfigError, match=r"data start after token 2, those of .*other after 1: prepare both"):
        open_(f"{folder},{other}")
    assert [open_(path).fingerprint()["begin_id"] for path in (folder, other)] == [2, 1]


def test_a_validation_sample_does_not_depend_on_the_names_of_the_folders(prepared, open_):
    documents = [random_documents(40, 30, seed) for seed in (0, 1)]
    a, b, c, d = (
        prepared(name, train=[[1, 2]], validation=documents[number]) for name, number in zip("abcd", [0, 1, 1, 0])
    )
    one, other = (supervised(open_(path, "validation", tokens=10 * T)) for path in (f"{a},{b}", f"{c},{d}"))
    assert one == other
