import json
import os

import numpy as np
import pytest

from gptjax.corpus.tokens.shards import ORIGIN, ShardWriter
from gptjax.files import file_hash, write_aside


def documents(rng, count, vocab_size=70_000):
    return [rng.integers(0, vocab_size, rng.integers(1, 40)) for _ in range(count)]


@pytest.mark.parametrize("vocab_size, dtype", [(256, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_shards_hold_the_stream_in_order(tmp_path, vocab_size, dtype):
    given = documents(np.random.default_rng(0), 57, vocab_size)
    given[3][0] = vocab_size - 1
    writer = ShardWriter(tmp_path, "train", vocab_size, shard_tokens=100)
    for start in range(0, 57, 10):
        writer.append(given[start : start + 10])
    section = writer.close()

    stream = np.concatenate(given)
    assert section["tokens"] == len(stream) and section["documents"] == 57
    assert [shard["tokens"] for shard in section["shards"][:-1]] == [100] * (len(stream) // 100)
    parts = [np.fromfile(tmp_path / shard["name"], dtype) for shard in section["shards"]]
    np.testing.assert_array_equal(np.concatenate(parts), stream)
    offsets = np.load(tmp_path / section["offsets"]["name"])
    assert offsets.dtype == np.uint64
    np.testing.assert_array_equal(offsets, np.cumsum([0, *map(len, given)]))
    for entry in [*section["shards"], section["offsets"]]:
        assert entry["size"] == (tmp_path / entry["name"]).stat().st_size
        assert entry["hash"] == file_hash(tmp_path / entry["name"])
    assert json.loads(json.dumps(section)) == section
    assert len(list(tmp_path.iterdir())) == len(parts) + 1, "no temporary file is left"


def test_a_shard_gets_its_name_only_when_complete(tmp_path):
    writer = ShardWriter(tmp_path, "train", 256, shard_tokens=100)
    writer.append([np.arange(150)])
    assert {path.name for path in tmp_path.iterdir()} == {"train-00000.bin", "train-00001.bin.tmp"}


def test_a_failed_write_does_not_replace_the_file(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text("old")
    with pytest.raises(OSError), write_aside(path) as file:
        file.write(b"half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"


def test_data_is_flushed_to_disk_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    with write_aside(tmp_path / "x") as file:
        file.write(b"x")
    assert calls == ["fsync", "replace"]


def test_origins_are_written_beside_the_offsets(tmp_path):
    writer = ShardWriter(tmp_path, "train", 256, shard_tokens=4)
    origins = np.array([(7, 0, 3), (8, 1, 0), (9, 1, 5)], ORIGIN)
    writer.extend(np.arange(5), np.array([2, 3]), origins[:2])
    writer.extend(np.arange(2), np.array([2]), origins[2:])
    section = writer.close()
    assert section["tokens"] == 7 and section["documents"] == 3
    np.testing.assert_array_equal(np.load(tmp_path / section["origins"]["name"]), origins)
    assert section["origins"]["hash"] == file_hash(tmp_path / "train.origins.npy")
