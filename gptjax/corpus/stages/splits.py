"""Random draws that depend only on their key and the seed: the validation split, samples, repeated documents."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from gptjax.config import ConfigError
from gptjax.corpus.documents import cut_at_paragraphs, is_blank
from gptjax.corpus.forms import CONVERSATIONS, TEXT, source_keys
from gptjax.data.splitmix import STEP, mix

CUT = "the rest of long documents that are held out"  # the reason why it is in no split
BY_KEY = ("source", "prompt")  # the first part of a document decides its split
LEAST_HELD_OUT = 1 << 13  # bytes: a few windows of text


def draws(keys: np.ndarray, seed: int) -> np.ndarray:
    """float64 [keys] in [0, 1): one uniform number per uint64 key, by SplitMix64."""
    states = np.asarray(keys, np.uint64) + np.uint64((seed + 1) * int(STEP) % 2**64)
    return (mix(states) >> np.uint64(11)) * 2.0**-53


def numbered(key: int, count: int) -> np.ndarray:
    """uint64 [count]: keys for the parts of a document with this key."""
    with np.errstate(over="ignore"):
        return np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * STEP


def split_texts(
    texts: Sequence[str],
    keys: np.ndarray,
    fraction: float,
    by: str,
    seed: int,
    most_bytes: int | None = None,
    test_below: float = 0,
    given: str = "",
) -> Iterator[tuple[int, str, str]]:
    """(number of the text, split, text) for some documents; no text is empty, or blank unless its document is.

    By 'document', a random draw for the document's key decides, so that documents with one key are in one split: below
    `fraction` it is validation text, from there to below `test_below` test text. If a held-out document is longer than
    `most_bytes`, its beginning is held out and the rest is in no split. By 'source' or 'prompt', the draw for
    that part of it decides (forms.py), and nothing is cut. By 'tail', the end of every document is held out, cut after
    a line if possible: for corpora of one or a few long documents. (A config's 'auto' was replaced by one of these
    before.)

    given: the split of all these texts, which then are not divided; '': none is given.
    """
    if given:
        yield from ((number, given, text) for number, text in enumerate(texts))
        return
    if by == "tail" and fraction:
        for number, text in enumerate(texts):
            cut = tail_start(text, fraction)
            if is_blank(text[cut:]):  # only the empty lines at its end
                cut = tail_start(text.rstrip(), fraction)
            if is_blank(text[:cut]) or is_blank(text[cut:]):
                yield number, "train", text
            else:
                yield from ((number, "train", text[:cut]), (number, "validation", text[cut:]))
        return
    if by in BY_KEY:
        most_bytes = None
    for number, (text, draw) in enumerate(zip(texts, document_draws(texts, keys, by, seed))):
        split = "validation" if draw < fraction else "test" if draw < test_below else "train"
        if split != "train" and most_bytes:
            text = cut_at_paragraphs(text, most_bytes)[0]
        yield number, split, text


def split_of(
    settings: Any, seed: int, form: str, given: Collection[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arguments of `split_texts` for a config, and the names of the splits.

    given: splits that sources give, which therefore are not drawn.

    Raises:
      ConfigError: the fields contradict each other.
    """
    for name in sorted(set(given) - {"train"}):  # a share of validation text has a default, and then does not count
        for field in (f"{name}_documents", "test_fraction")[: 1 + (name == "test")]:
            if settings[field]:
                raise ConfigError(
                    f"split.{field} = {settings[field]:g}: must be 0 where a source gives the split {name}"
                )
    documents, test = settings.validation_documents, settings.test_documents or settings.test_fraction
    fraction = 0.0 if documents or "validation" in given else settings.validation_fraction
    if settings.by == "tail" and (form != TEXT or documents or test):
        raise ConfigError(
            "split.by = 'tail': holds out the share split.validation_fraction of each running text; pairs, labelled "
            "texts, conversations, numbers of documents and a test split need 'document'"
        )
    if (settings.test_documents and fraction) or (settings.test_fraction and documents):
        raise ConfigError(
            "split: give numbers of documents for both validation_documents and test_documents, or shares for both, "
            "validation_fraction and test_fraction"
        )
    if fraction + settings.test_fraction >= 1:
        raise ConfigError(f"split: the shares {fraction:g} and {settings.test_fraction:g} leave nothing to train on")
    by = "document" if settings.by == "auto" else settings.by
    if form != TEXT:
        by = "prompt" if form == CONVERSATIONS else "source"
    split = {"fraction": fraction, "by": by, "seed": seed}
    if settings.test_fraction:
        split["test_below"] = fraction + settings.test_fraction
    held_out = {"validation": documents or fraction or "validation" in given, "test": test or "test" in given}
    return split, ("train", *(name for name, wanted in held_out.items() if wanted))


def document_draws(texts: Sequence[str], keys: np.ndarray, by: str, seed: int) -> np.ndarray:
    """float64 [texts]: the draw that decides the split of each document, by 'document', 'source' or 'prompt'."""
    return draws(source_keys(texts, by) if by in BY_KEY else keys, seed)


def limit_of(count: int, above: float, lowest: np.ndarray) -> float:
    """The smallest limit such that at least `count` documents have a draw from `above` to below the limit (more only if
    several have the same last draw).

    lowest: float64, the draws of all documents, ascending, or enough of the lowest ones.
    """
    first = int(np.searchsorted(lowest, above))
    last = min(first + count, len(lowest)) - 1
    return float(np.nextafter(lowest[last], 1)) if last >= first else above


def most_held_out(source_bytes: int, fraction: float, share: float) -> int:
    """The largest held-out part of one document, in bytes: at most `share` of what is expected to be held out of its
    source, and at least LEAST_HELD_OUT.

    It is a power of two, so that it does not change until a growing source has doubled.
    """
    return max(LEAST_HELD_OUT, 1 << max(int(source_bytes * fraction * share), 1).bit_length() - 1)


def tail_start(text: str, fraction: float) -> int:
    """Where the last `fraction` of a text begins: after a line, if one ends within 1,000 characters before."""
    cut = round(len(text) * (1 - fraction))
    return text.rfind("\n", max(cut // 2, cut - 1000), cut) + 1 or cut
