import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_duplicates import shingle_set, words

from gptjax.corpus.duplicates import shingles
from gptjax.corpus.duplicates.shingles import shingle_hashes, window_hashes, word_hashes, word_spans

ALPHABET = "ab_9 .\n\tÄäßéİ" + "e\u0301" + "漢字かなไทยกำ한국हि" + "😀\u00a0\u3000\U0010ffff"
texts_of_all_kinds = st.lists(st.text(st.sampled_from(ALPHABET), max_size=40), max_size=6)


def by_text(flat, offsets):
    return [flat[start:end].tolist() for start, end in itertools.pairwise(offsets)]


@settings(deadline=None)
@given(texts_of_all_kinds)
def test_words_equal_those_found_character_by_character(texts):
    """Equal words have equal hashes and different words have different hashes, at any position."""
    found = by_text(*word_hashes(texts))
    expected = [words(text) for text in texts]
    assert [len(hashes) for hashes in found] == [len(some) for some in expected]
    pairs = {pair for some, hashes in zip(expected, found) for pair in zip(some, hashes)}
    assert len(pairs) == len({word for word, _ in pairs}) == len({value for _, value in pairs})


@settings(deadline=None)
@given(st.text(st.sampled_from(ALPHABET), max_size=60))
def test_spans_cut_the_words_out_of_the_text(text):
    cut = [words(text[start:end]) for start, end in word_spans(text).tolist()]
    assert [word for some in cut for word in some] == words(text)


@settings(deadline=None)
@given(texts_of_all_kinds, st.integers(1, 4))
def test_shingles_are_runs_of_words(texts, n):
    found = by_text(*shingle_hashes(texts, n))
    for text, hashes in zip(texts, found):
        assert len(hashes) == max(0, len(words(text)) - n + 1)
        assert len(set(hashes)) == len(shingle_set(text, n))


@pytest.mark.parametrize("end", ["", " é"])
def test_batches_and_segments_do_not_change_hashes(monkeypatch, end):
    """Texts are split into many batches, and a text into many segments, also where it has no space to cut at."""
    texts = ["a short one", "", "some words of a longer text\n" * 50 + end, "x" * 300, "漢字" * 150, "end" + end]
    whole = by_text(*word_hashes(texts))
    monkeypatch.setattr(shingles, "BATCH_CHARACTERS", 64)
    assert by_text(*word_hashes(texts)) == whole
    assert [len(hashes) for hashes in whole] == [len(words(text)) for text in texts]


def test_hashes_do_not_depend_on_texts_of_other_scripts():
    (alone,) = by_text(*shingle_hashes(["The cat sat on the mat again"], 5))
    beside = by_text(*shingle_hashes(["é", "the CAT sat. On: the mat again!", "the cat sat on the mat again ß"], 5))
    assert beside[1] == alone and beside[2] == [*alone, beside[2][-1]]


def test_scripts_without_spaces_make_shingles_of_characters():
    flat, offsets = shingle_hashes(["我们都是好朋友", "我们都是 好朋友。", "我是"], 5)
    assert np.diff(offsets).tolist() == [3, 3, 0]
    assert flat[:3].tolist() == flat[3:6].tolist()


def test_the_unit_character_counts_all_but_whitespace():
    flat, offsets = shingle_hashes(["a+b c", "A +bc", "a-bc"], 3, "character")
    plus, spaced, minus = by_text(flat, offsets)
    assert len(plus) == 2 and plus == spaced and not set(plus) & set(minus)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=5), st.integers(1, 6))
def test_window_hashes_are_equal_for_equal_windows(documents, n):
    flat = np.array([value for document in documents for value in document], np.uint64)
    offsets = np.cumsum([0, *map(len, documents)])
    hashes, window_offsets = window_hashes(flat, offsets, n)
    windows = [tuple(d[i : i + n]) for d in documents for i in range(len(d) - n + 1)]
    assert np.diff(window_offsets).tolist() == [max(0, len(d) - n + 1) for d in documents]
    assert len(hashes) == len(windows)
    assert len(set(zip(windows, hashes.tolist()))) == len(set(windows)) == len(set(hashes.tolist()))


def test_window_hashes_do_not_depend_on_chunks(monkeypatch):
    values = np.random.default_rng(0).integers(0, 1 << 63, 5000).astype(np.uint64)
    offsets = np.array([0, 10, 1500, 1500, 5000])
    whole, _ = window_hashes(values, offsets, 50)
    monkeypatch.setattr(shingles, "WINDOWS_AT_ONCE", 128)
    assert window_hashes(values, offsets, 50)[0].tolist() == whole.tolist()
