"""The validation loss of a character model in two ways, the same for every model: `judge(nll, text, T)`.

whole      every character of the split but the first is predicted once, in windows of T side by side.
estimate   nanoGPT's: the mean over 20 batches of 12 windows at random places, here drawn 20 times, so that the spread
           of one such draw is known, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gptjax import tokenizer as tokenizers
from gptjax.data.prepared import read_manifest, shard_name, token_dtype

DRAWS, WINDOWS = 20, 20 * 12
CHUNK = 1 << 14  # tokens that a model processes at once


def characters(folder: str | Path, split: str) -> tuple[np.ndarray, int]:
    """Returns a prepared text without control tokens as numbers from 0 (int64 [N]), and the token id of number 0."""
    manifest = read_manifest(folder)
    tokens = np.fromfile(Path(folder) / shard_name(split, 0), token_dtype(manifest["tokenizer"]["vocab_size"]))
    first = len(tokenizers.load(folder).control_ids)
    return tokens[tokens >= first].astype(np.int64) - first, first


def judge(nll: Callable[[np.ndarray, np.ndarray], np.ndarray], text: np.ndarray, length: int) -> dict[str, float]:
    """Returns losses in nats per character.

    Args:
      nll: (inputs, targets), int64 [N, T] → the loss of every target, [N, T].
      text: the validation split.
      length: T.

    Returns:
      whole; estimate (mean of the draws), estimate_std (of one draw).
    """
    starts = np.arange(0, len(text) - 1, length)
    places = starts[:, None] + np.arange(length + 1)
    there = places[:, 1:] < len(text)
    losses = _in_chunks(nll, text[np.minimum(places, len(text) - 1)])
    whole = losses[there].mean()

    starts = np.random.default_rng(0).integers(0, len(text) - length, DRAWS * WINDOWS)
    draws = _in_chunks(nll, text[starts[:, None] + np.arange(length + 1)]).reshape(DRAWS, -1).mean(axis=1)
    return {"whole": float(whole), "estimate": float(draws.mean()), "estimate_std": float(draws.std(ddof=1))}


def _in_chunks(nll: Callable, windows: np.ndarray) -> np.ndarray:
    """Computes `nll` of windows [N, T + 1], always the same number at a time, so that one shape is compiled."""
    rows = CHUNK // (windows.shape[1] - 1)
    padded = np.pad(windows, ((0, -len(windows) % rows), (0, 0)))
    parts = [nll(part[:, :-1], part[:, 1:]) for part in np.split(padded, len(padded) // rows)]
    return np.concatenate(parts)[: len(windows)]
