"""Classifies new texts with a trained classifier."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config import ConfigError
from gptjax.inference.text import check_text
from gptjax.model.families import reading_family_of
from gptjax.model.family import Family
from gptjax.settings import ModelSettings
from gptjax.tokenizer import Tokenizer


def classify(
    params: Any,
    config: ModelSettings,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    begin_id: int,
    sequence_length: int,
    batch_size: int = 32,
) -> tuple[np.ndarray, int]:
    """The probability of each class for each text, float32 [texts, C], and the number of truncated texts.

    A text is read as in training: after the begin token, at most `sequence_length` tokens including it.

    Raises:
      ConfigError: a text is empty or not text.
    """
    rows = []
    for number, text in enumerate(texts, 1):
        check_text(f"text {number}", text)
        if not text.strip():
            raise ConfigError(f"text {number} is empty: there is nothing to classify")
        rows.append([begin_id, *tokenizer.encode(text)])
    probabilities_NC = np.zeros((len(rows), config.num_classes), np.float32)
    # Texts of similar length are read together, in rows of few lengths, each of which is compiled once.
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for first in range(0, len(rows), batch_size):
        chosen = by_length[first : first + batch_size]
        length = _padded(min(len(rows[chosen[-1]]), sequence_length), sequence_length)
        tokens_BT = np.zeros((batch_size, length), np.int32)
        segments_BT = np.zeros_like(tokens_BT)
        for row, index in enumerate(chosen):
            read = rows[index][:length]
            tokens_BT[row, : len(read)], segments_BT[row, : len(read)] = read, 1
        found_BC = _probabilities(reading_family_of(config), params, tokens_BT, segments_BT)
        probabilities_NC[chosen] = np.asarray(found_BC)[: len(chosen)]
    return probabilities_NC, sum(len(row) > sequence_length for row in rows)


def _padded(length: int, longest: int) -> int:
    """The next power of two, at least 16 and at most the maximum length."""
    return min(max(16, 1 << (length - 1).bit_length()), longest)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(family: Family, params: Any, tokens_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
    model: Any = family.module()
    logits_BC, _ = model.apply({"params": params}, jnp.asarray(tokens_BT), jnp.asarray(segments_BT))
    return jax.nn.softmax(logits_BC, axis=-1)
