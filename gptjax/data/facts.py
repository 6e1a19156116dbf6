"""The facts that a plan needs about data, so that it can also be made without data."""

from __future__ import annotations

import dataclasses
import functools

from ml_collections import ConfigDict

from gptjax.config import ConfigError
from gptjax.data.dataset import Dataset, open_dataset
from gptjax.settings import DataSettings, freeze_section


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """Facts about training data. They come from a `Dataset` (`facts_of`) or prepared folders (`read_facts`).

    Attributes:
      vocab_size: number of tokens of the tokenizer.
      windows_per_epoch: rows of data.sequence_length tokens in one pass over the data. None if unknown, in which case
        no duration can be in epochs.
      source_vocab_size: number of tokens of the sources' tokenizer, if the sources of pairs have their own.
      num_classes: the number of labels that a row may have; 0: rows have none.
    """

    vocab_size: int
    windows_per_epoch: int | None = None
    source_vocab_size: int | None = None
    num_classes: int = 0


def facts_of(data: Dataset) -> DataFacts:
    source_vocab_size = data.source_vocab_size if data.has_two_vocabularies else None
    return DataFacts(data.vocab_size, data.num_windows, source_vocab_size, data.num_classes)


def read_facts(config_data: ConfigDict | DataSettings, windows: str = "") -> DataFacts:
    """Facts about the folders of `data.path`. Their files must be present and complete, but are not hashed.

    windows: as `open_dataset` takes it.

    Raises:
      ConfigError: as `open_dataset` does.
    """
    return _read_once(dataclasses.replace(freeze_section(DataSettings, config_data), verify=False), windows)


@functools.cache  # cached, since most runs of a sweep read the same data
def _read_once(config_data: DataSettings, windows: str) -> DataFacts:
    return facts_of(open_dataset(config_data, "train", seed=0, batch_size=1, windows=windows))


def read_validation_windows(config_data: ConfigDict | DataSettings, windows: str = "") -> int | None:
    """The number of rows of the validation split of `data.path`; None if it is not here. Nothing is hashed.

    windows: as `open_dataset` takes it.
    """
    try:
        return _count_once(dataclasses.replace(freeze_section(DataSettings, config_data), verify=False), windows)
    except ConfigError:  # a run that needs the split says what is wrong
        return None


@functools.cache
def _count_once(config_data: DataSettings, windows: str) -> int:
    return open_dataset(config_data, "validation", seed=0, batch_size=1, windows=windows).num_windows
