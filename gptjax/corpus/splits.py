"""Draws that depend on what is drawn for alone: the validation split, samples, how often a document is repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15


def draws(keys: np.ndarray, seed: int) -> np.ndarray:
    """float64 [keys] in [0, 1): one uniform number a uint64 key, by SplitMix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = np.asarray(keys, np.uint64) + np.uint64((seed + 1) * _GOLDEN % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ x >> np.uint64(shift)) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)) * 2.0**-53


def numbered(key: int, count: int) -> np.ndarray:
    """uint64 [count]: keys for the parts of what `key` stands for."""
    with np.errstate(over="ignore"):
        return np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def split_texts(
    texts: Sequence[str], keys: np.ndarray, fraction: float, by: str, seed: int
) -> Iterator[tuple[int, str, str]]:
    """(number of the text, split, text) of some documents; nothing of it empty.

    By 'document', the draw of its key decides, so that documents of one key are on one side. By 'tail', every
    document's end is held out, cut after a line where it can be: for corpora of one or a few long documents. (A
    config's 'auto' is one of these two by then.)
    """
    if by == "tail" and fraction:
        for number, text in enumerate(texts):
            cut = tail_start(text, fraction)
            yield from (
                (number, split, part) for split, part in (("train", text[:cut]), ("validation", text[cut:])) if part
            )
        return
    for number, (text, held_out) in enumerate(zip(texts, draws(keys, seed) < fraction)):
        yield number, "validation" if held_out else "train", text


def tail_start(text: str, fraction: float) -> int:
    """Where the last `fraction` of a text begins: after a line, if one ends less than 1,000 characters before."""
    cut = round(len(text) * (1 - fraction))
    return text.rfind("\n", max(cut // 2, cut - 1000), cut) + 1 or cut
