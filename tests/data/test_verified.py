"""Every byte of a prepared folder is hashed once; later, sizes and modification times show whether to hash again."""

import os

import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data import prepared as folders
from gptjax.data.tokens import TokenSource


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are hashed."""
    names, whole = [], folders.file_hash
    monkeypatch.setattr(folders, "file_hash", lambda path: names.append(path.name) or whole(path))
    return names


@pytest.fixture
def folder(prepared):
    return prepared(train=[np.arange(30)], shard_tokens=10)


def test_a_second_start_hashes_nothing(folder, hashed):
    TokenSource(folder, "train")
    assert sorted(hashed) == [
        *("tokenizer.json", "train-00000.bin", "train-00001.bin", "train-00002.bin", "train.documents.npy")
    ]
    hashed.clear()
    TokenSource(folder, "train")
    assert hashed == []


def test_an_edit_of_the_same_size_is_found_by_its_time(folder, hashed):
    TokenSource(folder, "train")
    path = folder / "train-00001.bin"
    path.write_bytes(bytes(20))
    os.utime(path, ns=(1, 1))
    hashed.clear()
    for _ in range(2):  # a wrong file is not recorded as verified
        with pytest.raises(ConfigError, match=r"train-00001\.bin: hash"):
            TokenSource(folder, "train")
    assert hashed == ["train-00001.bin"] * 2


def test_without_verification_nothing_is_hashed(folder, hashed):
    TokenSource(folder, "train", verify=False)
    assert hashed == []


def test_if_the_cache_cannot_be_written_files_are_hashed_again(folder, hashed, cache):
    cache.parent.mkdir()
    cache.write_text("a file")
    for _ in range(2):
        TokenSource(folder, "train")
    assert len(hashed) == 10


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"train-00000.bin": 7}'])
def test_a_damaged_record_is_ignored(folder, hashed, cache, damage):
    TokenSource(folder, "train")
    (note,) = (cache / "verified").glob("*.json")
    note.write_bytes(damage)
    hashed.clear()
    TokenSource(folder, "train")
    assert len(hashed) == 5
