"""Random draws that depend only on their key and the seed: the validation split, samples, repeated documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gptjax.corpus.documents import cut_at_paragraphs, is_blank
from gptjax.splitmix import STEP, mix

CUT = "the rest of long documents that are held out"  # why it is in no split
LEAST_HELD_OUT = 1 << 13  # bytes: a few windows of text


def draws(keys: np.ndarray, seed: int) -> np.ndarray:
    """float64 [keys] in [0, 1): one uniform number per uint64 key, by SplitMix64."""
    states = np.asarray(keys, np.uint64) + np.uint64((seed + 1) * int(STEP) % 2**64)
    return (mix(states) >> np.uint64(11)) * 2.0**-53


def numbered(key: int, count: int) -> np.ndarray:
    """uint64 [count]: keys for the parts of what `key` stands for."""
    with np.errstate(over="ignore"):
        return np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * STEP


def split_texts(
    texts: Sequence[str], keys: np.ndarray, fraction: float, by: str, seed: int, most_bytes: int | None = None
) -> Iterator[tuple[int, str, str]]:
    """(number of the text, split, text) of some documents; nothing of it empty, or blank unless the document is.

    By 'document', the draw of its key decides, so that documents of one key are on one side. Of one that is held out
    and longer than `most_bytes`, the beginning is validation text, and the rest stands in no split. By 'tail', every
    document's end is held out, cut after a line where it can be: for corpora of one or a few long documents. (A
    config's 'auto' is one of these two by then.)
    """
    if by == "tail" and fraction:
        for number, text in enumerate(texts):
            cut = tail_start(text, fraction)
            if is_blank(text[cut:]):  # nothing but the empty lines at its end
                cut = tail_start(text.rstrip(), fraction)
            if is_blank(text[:cut]) or is_blank(text[cut:]):
                yield number, "train", text
            else:
                yield from ((number, "train", text[:cut]), (number, "validation", text[cut:]))
        return
    for number, (text, held_out) in enumerate(zip(texts, draws(keys, seed) < fraction)):
        if held_out and most_bytes:
            text = cut_at_paragraphs(text, most_bytes)[0]
        yield number, "validation" if held_out else "train", text


def most_held_out(source_bytes: int, fraction: float, share: float) -> int:
    """Bytes that one document may hold out: at most `share` of what is expected to be held out of its source.

    A power of two, so that a source may grow, until it has doubled, and nothing changes in what its documents hold
    out; and LEAST_HELD_OUT where that is more.
    """
    return max(LEAST_HELD_OUT, 1 << max(int(source_bytes * fraction * share), 1).bit_length() - 1)


def tail_start(text: str, fraction: float) -> int:
    """Where the last `fraction` of a text begins: after a line, if one ends less than 1,000 characters before."""
    cut = round(len(text) * (1 - fraction))
    return text.rfind("\n", max(cut // 2, cut - 1000), cut) + 1 or cut
