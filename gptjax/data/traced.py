"""The origin of a row of a training batch: its places in the token stream of a prepared folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError, Units
from gptjax.data.dataset import Dataset
from gptjax.display.differences import differences, with_lines
from gptjax.settings import Settings


@dataclass(frozen=True)
class TracedRow:
    """A row of the batch of a training step.

    Attributes:
      folder: the prepared folder from which it was read.
      spans: as `Dataset.spans`: (first position in the row, place of that position's target in the stream, targets).
      title: a sentence that describes the row.
    """

    folder: Path
    spans: list[list[int]]
    title: str


def traced_row(
    config: Settings, dataset: Dataset, fingerprint: Mapping[str, Any] | None, step: int, row: int
) -> TracedRow:
    """The row of a run's batch.

    Args:
      config: the run's config.
      dataset: the training data, as the run opens them.
      fingerprint: the data's, as saved with the run's checkpoints; None before the first one.
      step: counted from 1, as in metrics.jsonl. row: counted from 0.

    Raises:
      ConfigError: there is no such step or row, or the data are not what the run was trained on.
    """
    size, length = config.training.batch_size, config.data.sequence_length
    current = json.loads(json.dumps(dataset.fingerprint()))
    if fingerprint and fingerprint != current:
        sentence = f"data.path = {config.data.path!r}: is not what the run was trained on"
        raise ConfigError(with_lines(sentence, differences(dict(fingerprint), current)))
    total = Units(size * length, dataset.num_windows / size).steps(config.training.duration, "training.duration")
    if not 1 <= step <= total:
        raise ConfigError(f"--step={step}: the run has steps 1 to {total}")
    if not 0 <= row < size:
        raise ConfigError(f"--row={row}: a batch has rows 0 to {size - 1}")
    source, spans = dataset.spans(step - 1, row)
    title = f"step {step} of {total}, row {row} of {size}: {length} positions, from {source.folder}"
    return TracedRow(source.folder, spans.tolist(), title)
