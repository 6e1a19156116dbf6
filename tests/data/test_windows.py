import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data.tokens import TokenSource
from gptjax.data.windows import ContiguousWindows


@pytest.mark.parametrize("num_tokens", [2, 8, 9, 16, 17, 18, 31, 33])
@pytest.mark.parametrize("shard_tokens", [5, 1000])
def test_every_token_but_the_first_is_a_target_once(prepared, num_tokens, shard_tokens):
    source = TokenSource(prepared(train=[np.arange(num_tokens)], shard_tokens=shard_tokens), "train")
    windows = ContiguousWindows(source, 8)
    batch = windows.gather(np.arange(len(windows)))
    assert {name: (values.dtype, values.shape) for name, values in batch.items()} == {
        "tokens": (np.int32, (len(windows), 8)),
        "targets": (np.int32, (len(windows), 8)),
        "weights": (np.float32, (len(windows), 8)),
    }
    supervised = batch["weights"] == 1
    assert supervised.sum() == batch["weights"].sum() == num_tokens - 1
    assert batch["targets"][supervised].tolist() == list(range(1, num_tokens))
    assert batch["tokens"][supervised].tolist() == list(range(num_tokens - 1))
    assert not batch["targets"][~supervised].any()


def test_any_windows_in_any_order(prepared):
    source = TokenSource(prepared(train=[np.arange(100)], shard_tokens=7), "train")
    batch = ContiguousWindows(source, 10).gather(np.array([5, 0, 5]))
    assert batch["tokens"][:, 0].tolist() == [50, 0, 50]
    assert batch["targets"][:, -1].tolist() == [60, 10, 60]


def test_a_text_without_a_target_is_refused(prepared):
    source = TokenSource(prepared(train=[np.arange(1)]), "train")
    with pytest.raises(ConfigError, match=r"train-00000.bin has 1 tokens, too few"):
        ContiguousWindows(source, 8)
