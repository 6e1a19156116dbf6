import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.config import ConfigError
from gptjax.corpus.duplicates import sketch
from gptjax.corpus.duplicates.sketch import (
    NO_SHINGLES,
    band_keys,
    bands_and_rows,
    exact_hashes,
    probability,
    signatures,
)
from gptjax.data.splitmix import mix


def sets_of(*sizes_and_starts):
    """Hashes of consecutive numbers, whose overlaps are known."""
    parts = [mix(np.arange(start, start + size, dtype=np.uint64)) for size, start in sizes_and_starts]
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)])


def test_signature_agreement_estimates_jaccard():
    """The estimate is unbiased and has the spread of independent draws: √(J(1-J)/K)."""
    jaccards, permutations = [], 256
    errors = []
    for trial in range(200):
        shared = 10 + 2 * (trial % 45)
        flat, offsets = sets_of((100, 1000 * trial), (100, 1000 * trial + 100 - shared))
        first, second = signatures(flat, offsets, permutations, seed=trial)
        jaccard = shared / (200 - shared)
        jaccards.append(jaccard)
        errors.append((np.mean(first == second) - jaccard) / np.sqrt(jaccard * (1 - jaccard) / permutations))
    assert abs(np.mean(errors)) < 3 / np.sqrt(len(errors))
    assert 0.85 < np.std(errors) < 1.15


def test_signatures_do_not_depend_on_chunks_repeats_or_order(monkeypatch):
    flat, offsets = sets_of((3, 0), (0, 0), (500, 7), (1, 9), (90, 3))
    whole = signatures(flat, offsets, 16)
    assert np.all(whole[1] == NO_SHINGLES) and np.all(whole[[0, 2, 3, 4]].min(axis=1) < NO_SHINGLES)
    monkeypatch.setattr(sketch, "SHINGLES_AT_ONCE", 64)
    np.testing.assert_array_equal(signatures(flat, offsets, 16), whole)
    shuffled = np.random.default_rng(0).permutation(np.concatenate([flat[3:503], flat[3:100]]))
    np.testing.assert_array_equal(signatures(shuffled, np.array([0, len(shuffled)]), 16)[0], whole[2])
    assert not np.array_equal(signatures(flat, offsets, 16, seed=1), whole)


def test_no_documents_have_no_sketches():
    assert signatures(np.zeros(0, np.uint64), np.zeros(1, np.int64), 8).shape == (0, 8)
    assert band_keys(np.zeros((0, 8), np.uint32), 2, 4).shape == (0, 2)


def test_band_keys_are_equal_if_all_rows_of_a_band_are():
    values = np.random.default_rng(0).integers(0, 3, (300, 12)).astype(np.uint32)
    keys = band_keys(values, 4, 3)
    same = (values[:, None, :] == values[None, :, :]).reshape(300, 300, 4, 3).all(-1)
    np.testing.assert_array_equal(keys[:, None] == keys[None], same)
    assert len(np.intersect1d(keys[:, 0], keys[:, 1])) == 0
    with pytest.raises(ValueError, match="5 bands of 3 rows need 15 values, not 12"):
        band_keys(values, 5, 3)


def test_candidates_follow_the_s_curve():
    bands, rows = 10, 4
    flat, offsets = sets_of(*[(100, 10_000 * pair + shift) for pair in range(1500) for shift in (0, 25)])
    keys = band_keys(signatures(flat, offsets, bands * rows), bands, rows)
    found = np.mean((keys[0::2] == keys[1::2]).any(axis=1))
    expected = probability(75 / 125, bands, rows)
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 1500)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_parameters_reach_the_recall_with_the_most_rows(threshold):
    bands, rows = bands_and_rows(threshold, 128, recall=0.98)
    assert bands * rows <= 128
    assert probability(threshold, bands, rows) >= 0.98
    assert probability(threshold, 128 // (rows + 1), rows + 1) < 0.98


def test_default_parameters_and_impossible_ones():
    assert bands_and_rows(0.8) == (18, 7)
    with pytest.raises(ConfigError, match=r"permutations = 2: too few to find 98% of the pairs of similarity .* = 0.1"):
        bands_and_rows(0.1, 2)


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab+ \n\t\u00a0\u3000\x1céÅ\u030a漢"), max_size=8), max_size=12))
def test_hashes_ignore_whitespace_and_unicode_composition(texts):
    plain = ["".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    hashes = exact_hashes(texts)
    assert hashes.dtype == np.uint64
    assert (hashes[:, None] == hashes[None]).tolist() == [[a == b for b in plain] for a in plain]


def test_hashes_depend_on_punctuation_and_case():
    assert len(set(exact_hashes(["a + b", "a - b", "A + b", "a+b "]).tolist())) == 3
