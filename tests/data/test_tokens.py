import json
import pickle

import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data.prepared import read_manifest
from gptjax.data.tokens import TokenSource
from gptjax.tokenizer import ByteTokenizer


class LargeTokenizer(ByteTokenizer):
    """A byte tokenizer that claims a vocabulary too large for uint16."""

    def __init__(self):
        super().__init__()
        self.vocab_size = 100_000


DOCUMENTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 11]]


@pytest.mark.parametrize("shard_tokens", [1, 4, 1000])
@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), LargeTokenizer()], ids=["uint16", "uint32"])
def test_shards_are_read_like_one_array(prepared, shard_tokens, tokenizer):
    folder = prepared(train=DOCUMENTS, shard_tokens=shard_tokens, tokenizer=tokenizer)
    source = TokenSource(folder, "train")
    assert source.num_tokens == 11
    assert (source.vocab_size, source.tokenizer_hash, source.eos_id) == (tokenizer.vocab_size, tokenizer.hash, 2)
    taken = source.take_runs(np.array([6, 0, 10, 4]), np.array([5, 11, 1, 0]))
    assert taken.dtype == np.int32 and taken.tolist() == [*range(7, 12), *range(1, 12), 11]
    assert source.take_runs(np.array([-1, -1]), np.array([3, 0])).tolist() == [2, 1, 2], (
        "the begin token comes before it"
    )
    assert source.take_runs(np.array([], int), np.array([], int)).shape == (0,)
    for start, length in ((-2, 3), (9, 3)):
        with pytest.raises(IndexError, match="the stream has places 0 to 11"):
            source.take_runs(np.array([start]), np.array([length]))
    assert source.document_offsets().tolist() == [0, 3, 4, 9, 11]


def test_pickling_a_source_copies_no_tokens(prepared):
    source = TokenSource(prepared(train=[np.arange(50_000)]), "train")
    source.take_runs(np.array([0]), np.array([3]))
    packed = pickle.dumps(source)
    assert len(packed) < 10_000
    assert pickle.loads(packed).take_runs(np.array([0]), np.array([3])).tolist() == [0, 1, 2]


def test_a_truncated_shard_is_named_with_both_sizes(prepared):
    folder = prepared(train=DOCUMENTS, shard_tokens=4)
    path = folder / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ConfigError, match=r"train-00001\.bin: 5 bytes, but manifest\.json says 8"):
        TokenSource(folder, "train", verify=False)


@pytest.mark.parametrize("name", ["train-00000.bin", "train.documents.npy", "tokenizer.json"])
def test_verification_finds_one_changed_bit(prepared, name):
    folder = prepared(train=DOCUMENTS)
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    TokenSource(folder, "train", verify=False)
    with pytest.raises(
        ConfigError, match=rf"{name}: hash [0-9a-f]{{16}}, but manifest\.json says [0-9a-f]{{16}}: altered"
    ):
        TokenSource(folder, "train", verify=True)


def test_a_missing_shard_is_named(prepared):
    folder = prepared(train=DOCUMENTS)
    (folder / "train-00000.bin").unlink()
    with pytest.raises(ConfigError, match=r"train-00000\.bin: missing"):
        TokenSource(folder, "train", verify=False)


def test_a_missing_split_is_refused(prepared):
    with pytest.raises(ConfigError, match="has no validation split, only train"):
        TokenSource(prepared(train=DOCUMENTS), "validation")


def test_folders_that_are_not_prepared_are_refused(tmp_path, prepared):
    with pytest.raises(ConfigError, match=r"nowhere': no such folder \(python -m gptjax\.prepare makes one\)"):
        TokenSource(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty': not a prepared folder"):
        TokenSource(tmp_path / "empty", "train")
    folder = prepared(train=DOCUMENTS)
    manifest = read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ConfigError, match="has format 99, this version reads format 2"):
        TokenSource(folder, "train")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="is cut off"):
        TokenSource(folder, "train")
    (folder / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="an unfinished prepared folder"):
        TokenSource(folder, "train")
