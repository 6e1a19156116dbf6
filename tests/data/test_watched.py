"""Data that change during a run end it with one sentence, in the process itself and in a loader process."""

import os
import pickle

import numpy as np
import pytest

from gptjax.config import RunError
from gptjax.data import watched
from gptjax.data.labelled import LabelledRows
from gptjax.data.tokens import TokenSource


@pytest.fixture
def source(prepared, monkeypatch):
    monkeypatch.setattr(watched, "CHECK_EVERY", 0.0)
    return TokenSource(prepared(train=[np.arange(5000)], shard_tokens=5000), "train")


def overwrite(path):
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(1, 1))


def truncate(path):
    os.truncate(path, 100)


def replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


CHANGES = pytest.mark.parametrize(
    ("change", "message"),
    [
        (overwrite, r"was changed during the run \(has a new modification time\)"),
        (truncate, r"was changed during the run \(had 10000 bytes, has 100\)"),
        (replace, "was changed during the run"),
        (os.unlink, "was deleted during the run"),
    ],
    ids=["overwritten", "truncated", "replaced", "deleted"],
)


@CHANGES
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in a loader process"])
def test_a_change_is_noticed(source, change, message, elsewhere):
    places = np.array([4000]), np.array([10])
    assert source.take_runs(*places).tolist() == list(range(4000, 4010))
    change(source.folder / "train-00000.bin")
    reader = pickle.loads(pickle.dumps(source)) if elsewhere else source
    with pytest.raises(RunError, match=rf"train-00000\.bin: {message}"):
        reader.take_runs(*places)


def test_a_file_truncated_between_two_checks_is_an_error_not_a_crash(source, monkeypatch):
    """A memory map would kill the process by SIGBUS."""
    monkeypatch.setattr(watched, "CHECK_EVERY", 1e9)
    source.take_runs(np.array([0]), np.array([10]))
    truncate(source.folder / "train-00000.bin")
    with pytest.raises(RunError, match="had 10000 bytes, has 100"):
        source.take_runs(np.array([4000]), np.array([10]))


@pytest.mark.parametrize("check_every", [0.0, 1e9], ids=["checked", "between two checks"])
@pytest.mark.parametrize("name", ["train.documents.npy", "train.labels.npy"])
def test_a_change_of_what_belongs_to_documents_is_noticed(prepared, monkeypatch, name, check_every):
    monkeypatch.setattr(watched, "CHECK_EVERY", check_every)
    documents = [[10 * i + 1, 10 * i + 2, 9] for i in range(8)]
    rows = LabelledRows(TokenSource(prepared(train=documents, labels=["a", "b", "c"]), "train"), 8)
    some = np.array([7, 0, 7])
    assert rows.gather(some)["tokens"][:, 1].tolist() == [71, 1, 71]
    assert rows.gather(some)["labels"].tolist() == [1, 0, 1]
    truncate(rows._source.folder / name)
    with pytest.raises(RunError, match=rf"{name}: was changed during the run"):
        rows.gather(some)


def test_few_files_are_open_at_a_time(prepared, monkeypatch):
    monkeypatch.setattr(watched, "MOST_OPEN", 3)
    source = TokenSource(prepared(train=[np.arange(100)], shard_tokens=5), "train")
    before = len(os.listdir("/proc/self/fd"))
    assert source.take_runs(np.array([0]), np.array([100])).tolist() == list(range(100))
    assert len(os.listdir("/proc/self/fd")) <= before + 3
