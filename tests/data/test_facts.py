"""The data facts of a plan equal those of the opened data, and no shard is hashed for them."""

import pytest

from gptjax.config import ConfigError
from gptjax.data import open_dataset
from gptjax.data.facts import DataFacts, facts_of, read_facts


@pytest.mark.parametrize("windows", ["contiguous", "packed"])
def test_facts_are_read_without_hashing(prepared, data_config, windows):
    config = data_config(prepared(train=[[*range(n), 256] for n in (5, 20, 9)]), sequence_length=8, windows=windows)
    facts = facts_of(open_dataset(config, "train", seed=3, batch_size=2))
    assert facts == DataFacts(vocab_size=265, windows_per_epoch=5)
    path = f"{config.path}/train-00000.bin"
    with open(path, "r+b") as shard:  # a bit flips
        shard.write(b"\7")
    assert read_facts(config) == facts
    with pytest.raises(ConfigError, match="hash"):
        open_dataset(config, "train", seed=3, batch_size=2)
    with open(path, "r+b") as shard:
        shard.truncate(10)
    config.sequence_length = 4  # facts are cached by config
    with pytest.raises(ConfigError, match=r"train-00000\.bin"):
        read_facts(config)
