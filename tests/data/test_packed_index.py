"""The index of packed rows is built once, in blocks, stored completely or not at all, and small when pickled."""

import errno
import os
import pickle

import numpy as np
import pytest
from prepared_folders import random_documents

from gptjax.config import ConfigError
from gptjax.data import packed_index, stored_index
from gptjax.data.packing import PackedWindows
from gptjax.data.tokens import TokenSource


@pytest.fixture
def source(prepared):
    return TokenSource(prepared(train=random_documents(2000, 30)), "train")


def targets(windows):
    batch = windows.gather(np.arange(len(windows)))
    return sorted(batch["targets"][batch["weights"] == 1].tolist())


@pytest.mark.parametrize("block", [1, 100, 5000])
def test_blocks_lose_no_target_and_waste_little_space(source, block, monkeypatch):
    whole = PackedWindows(source, 64)
    monkeypatch.setattr(packed_index, "BLOCK", block)
    in_blocks = PackedWindows(source, 64)
    assert targets(in_blocks) == targets(whole)
    if block == 5000:
        assert len(whole) <= len(in_blocks) <= 1.02 * len(whole)


def test_the_index_is_built_once(source, monkeypatch):
    first = PackedWindows(source, 64)
    monkeypatch.setattr(stored_index, "_make", None)
    assert targets(PackedWindows(source, 64)) == targets(first)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: os.truncate(path, 8)], ids=["deleted", "truncated"]
)
def test_an_index_that_lacks_a_part_is_built_again(source, cache, damage):
    first = targets(PackedWindows(source, 64))
    (index,) = (cache / "packed").iterdir()
    damage(index / "first.bin")
    assert targets(PackedWindows(source, 64)) == first and list((cache / "packed").iterdir()) == [index]


def test_other_documents_have_another_index(source, prepared):
    PackedWindows(source, 64)
    other = TokenSource(prepared("other", train=random_documents(2000, 30, seed=1)), "train")
    assert targets(PackedWindows(other, 64)) == sorted(np.concatenate(random_documents(2000, 30, seed=1)).tolist())


def test_rows_of_another_length_have_another_index(source):
    long, short = PackedWindows(source, 64), PackedWindows(source, 32)
    assert len(short) > len(long) and targets(short) == targets(long)


def test_documents_with_their_own_begin_token_have_another_index(source, monkeypatch):
    after_the_end = targets(PackedWindows(source, 64))
    monkeypatch.setattr(source, "own_begin", 1 - source.own_begin)
    assert len(targets(PackedWindows(source, 64))) == len(after_the_end) - len(source.document_offsets()) + 1


def test_pickling_does_not_copy_the_index(source):
    windows = PackedWindows(source, 64)
    windows.gather(np.array([0]))
    packed = pickle.dumps(windows)
    assert len(packed) < 10_000
    assert targets(pickle.loads(packed)) == targets(windows)


def test_a_full_disk_leaves_no_files(source, cache, monkeypatch):
    def full(files, **given):
        files["starts"].write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(packed_index, "_write", full)
        with pytest.raises(ConfigError, match=r"data\.windows = 'packed': .*No space left on device.*XDG_CACHE_HOME"):
            PackedWindows(source, 64)
    assert not list((cache / "packed").iterdir())
    assert len(PackedWindows(source, 64))


def test_two_processes_that_build_the_index_at_once_read_the_same_one(source, cache, monkeypatch):
    write, others = packed_index._write, []

    def overtaken(files, **facts):
        write(files, **facts)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(packed_index, "_write", write)
            others.append(PackedWindows(source, 64))

    monkeypatch.setattr(packed_index, "_write", overtaken)
    slower = PackedWindows(source, 64)
    assert targets(slower) == targets(others[0]) and len(others) == 1
    assert len(list((cache / "packed").iterdir())) == 1
