"""Labelled texts: a row has one text and the number of its label. Labels can have weights."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from gptjax.config import ConfigError
from gptjax.data.keys import LABELS, SEGMENTS, TOKENS, WEIGHTS
from gptjax.data.tokens import TokenSource


class LabelledRows:
    """Row i has the begin token and text i, with at most T tokens in total; the end of a longer text is cut off.

    Attributes:
      truncated: the number of texts that are longer than a row.
    """

    LAYOUT = "begin token, then the beginning of one text"
    FORMS = ("labelled",)
    LENGTHS = ("sequence_length",)
    left_out = 0

    def __init__(self, source: TokenSource, sequence_length: int):
        self._source, self._length = source, sequence_length
        _, lengths = self._places(np.arange(len(self)))
        self.truncated = int((lengths > sequence_length).sum())

    def __len__(self) -> int:
        return self._source.num_documents

    def gather(self, index_B: np.ndarray) -> dict[str, np.ndarray]:
        """Returns some rows: tokens and segments int32 [B, T] (segment 1 is the text, 0 padding), labels int32 [B], and
        weights float32 [B], all 1."""
        starts_B, lengths_B = self._places(index_B)
        lengths_B = np.minimum(lengths_B, self._length)
        inside_BT = np.arange(self._length) < lengths_B[:, None]
        tokens = np.zeros(inside_BT.shape, np.int32)
        tokens[inside_BT] = self._source.take_runs(starts_B, lengths_B)
        labels_B = self._source.labels_of(index_B).astype(np.int32)
        weights_B = np.ones(len(index_B), np.float32)
        return {TOKENS: tokens, SEGMENTS: inside_BT.astype(np.int32), LABELS: labels_B, WEIGHTS: weights_B}

    def spans(self, index: int) -> np.ndarray:
        """int64 [1, 3]: (position in the row, place in the stream, tokens) of the text in the row."""
        starts, lengths = self._places(np.array([index]))
        return np.stack([np.ones(1, np.int64), starts + 1, np.minimum(lengths, self._length) - 1], axis=1)

    def _places(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [B]: the place of each text's begin token, and the number of tokens from there to the end of the
        text."""
        starts_B = self._source.offsets_of(index_B) - 1 + self._source.own_begin
        return starts_B, self._source.offsets_of(index_B + 1) - 1 - starts_B


BALANCED = "balanced"
_WEIGHT = re.compile(r"\s*(.+?)\s*=\s*([^=,]+?)\s*(?:,|$)")  # 'spam=6.5,'; the label may have commas


@dataclasses.dataclass(frozen=True)
class ClassWeights:
    """Gives each row the weight of its label (a `Rewriting`). weights: one per label, in their order."""

    weights: tuple[float, ...]

    def __call__(self, rows: dict[str, np.ndarray], places_B: np.ndarray) -> dict[str, np.ndarray]:
        return {**rows, WEIGHTS: rows[WEIGHTS] * np.array(self.weights, np.float32)[rows[LABELS]]}

    def facts(self) -> dict:
        return {"class_weights": list(self.weights)}


def class_weights(setting: str, sources: Sequence[TokenSource], shares: Sequence[float]) -> ClassWeights:
    """The weights that `training.class_weights` stands for: 'balanced', or 'LABEL=WEIGHT,…' (1 for the other labels).

    Balanced weights are 1 / (C · share of the label's texts), where C is the number of labels, so that all labels weigh
    the same, and a text weighs 1 on average (scikit-learn's convention).

    Args:
      shares: the weight of each source in the mixture.

    Raises:
      ConfigError: a weight is not a positive number, or no text can have its label.
    """
    labels = sources[0].labels
    if setting == BALANCED:
        counts = [np.bincount(source.document_labels(), minlength=len(labels)) for source in sources]
        shares_C = sum(share * count_C / count_C.sum() for share, count_C in zip(shares, counts)) / sum(shares)
        present = np.count_nonzero(shares_C)
        return ClassWeights(tuple(float(1 / (present * share)) if share else 1.0 for share in shares_C))
    field, weights, end = f"training.class_weights = {setting!r}", dict.fromkeys(labels, 1.0), 0
    for found in _WEIGHT.finditer(setting):
        label, text, begin, end = found[1], found[2], end, found.end()
        if found.start() != begin:
            break
        if label not in weights:
            raise ConfigError(f"{field}: {label!r} is not a label of data.path, which has {', '.join(labels[:10])}")
        try:
            weights[label] = float(text)
        except ValueError:
            weights[label] = math.nan
        if not 0 < weights[label] < math.inf:
            raise ConfigError(f"{field}: the weight of {label!r} must be a positive number, not {text!r}")
    if end != len(setting):
        raise ConfigError(
            f"{field}: expected {BALANCED}, or weights of labels such as '{labels[0]}=2,{labels[-1]}=0.5'"
        )
    return ClassWeights(tuple(weights.values()))
