from collections import Counter

import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data.packing import PackedWindows
from gptjax.data.tokens import TokenSource
from gptjax.data.windows import ContiguousWindows


@pytest.mark.parametrize("num_tokens", [1, 8, 9, 16, 17, 18, 31, 33])
@pytest.mark.parametrize("shard_tokens", [5, 1000])
def test_every_token_is_a_target_once(prepared, num_tokens, shard_tokens):
    source = TokenSource(prepared(train=[np.arange(num_tokens)], shard_tokens=shard_tokens), "train")
    windows = ContiguousWindows(source, 8)
    batch = windows.gather(np.arange(len(windows)))
    assert {name: (values.dtype, values.shape) for name, values in batch.items()} == {
        "tokens": (np.int32, (len(windows), 8)),
        "targets": (np.int32, (len(windows), 8)),
        "weights": (np.float32, (len(windows), 8)),
    }
    supervised = batch["weights"] == 1
    assert supervised.sum() == batch["weights"].sum() == num_tokens
    assert batch["targets"][supervised].tolist() == list(range(num_tokens))
    assert batch["tokens"][supervised].tolist() == [source.begin_id, *range(num_tokens - 1)]
    assert not batch["targets"][~supervised].any()


def test_windows_are_gathered_in_any_order(prepared):
    source = TokenSource(prepared(train=[np.arange(100)], shard_tokens=7), "train")
    batch = ContiguousWindows(source, 10).gather(np.array([5, 0, 5]))
    assert batch["tokens"][:, 0].tolist() == [49, source.begin_id, 49]
    assert batch["targets"][:, -1].tolist() == [59, 9, 59]


def test_a_text_without_a_target_is_refused(prepared):
    source = TokenSource(prepared(train=[[]]), "train")
    with pytest.raises(ConfigError, match="the train split has no token to learn"):
        ContiguousWindows(source, 8)


DOCUMENTS = [[70, 71, 72], [73], [], [*range(80, 95)], [96, 97]]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("length", [4, 32])
def test_both_kinds_of_windows_score_the_same_tokens_after_the_same_begin_token(prepared, bos, length):
    """All text and every EOS are scored once, BOS never; a document's first token is predicted from the begin token."""
    begin = 1 if bos else 2
    folder = prepared(train=[[*[begin] * bos, *ids, 2] for ids in DOCUMENTS], bos=bos, shard_tokens=5)
    source = TokenSource(folder, "train")
    wanted = Counter(token for ids in DOCUMENTS for token in [*ids, 2])
    for kind in (ContiguousWindows, PackedWindows):
        windows = kind(source, length)
        batch = windows.gather(np.arange(len(windows)))
        scored = batch["weights"] == 1
        assert Counter(batch["targets"][scored].tolist()) == wanted
        assert scored.sum() == source.num_targets
        before = dict(zip(batch["targets"][scored].tolist(), batch["tokens"][scored].tolist()))
        assert all(before[ids[0]] == begin for ids in DOCUMENTS if ids)


def test_both_kinds_make_the_same_window_of_a_text_that_fits(prepared):
    """So the loss and the bits per byte of such a text do not depend on the kind."""
    source = TokenSource(prepared(train=[[*range(10, 17), 2]]), "train")
    one, other = (kind(source, 12).gather(np.array([0])) for kind in (ContiguousWindows, PackedWindows))
    scored = one["weights"] == 1
    assert (scored == (other["weights"] == 1)).all()
    assert all((one[name][scored] == other[name][scored]).all() for name in one)
    assert other["positions"][0, :8].tolist() == list(range(8)) and (other["segments"][0, :8] == 1).all()
