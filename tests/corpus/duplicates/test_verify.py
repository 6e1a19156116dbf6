import itertools

import numpy as np
from planted_duplicates import pair_similarities, planted

from gptjax.corpus.duplicates.join import pack
from gptjax.corpus.duplicates.verify import SetFolder, index_sets, jaccard, unique_shingles, write_sets


def sets_of(texts):
    flat, offsets = unique_shingles(texts, 5, "word")
    return [flat[start:end] for start, end in itertools.pairwise(offsets)]


def test_similarities_equal_those_of_brute_force():
    texts = ["", "too short", *planted(families=8, alone=5), "a b c d e a b c d e a b c d e f"]
    i, j = np.triu_indices(len(texts), 1)
    found = jaccard(pack(i, j), sets_of(texts))
    np.testing.assert_allclose(found, pair_similarities(texts)[i, j], atol=1e-6)
    assert np.count_nonzero(found) > 20


def test_a_threshold_does_not_change_similarities_above_it():
    texts = planted(families=8, alone=5)
    i, j = np.triu_indices(len(texts), 1)
    all_of_them = jaccard(pack(i, j), sets_of(texts))
    found = jaccard(pack(i, j), sets_of(texts), threshold=0.7)
    np.testing.assert_array_equal(found[all_of_them >= 0.7], all_of_them[all_of_them >= 0.7])
    assert np.all((found == all_of_them) | (found == 0))


def test_sets_in_files_equal_those_in_memory(tmp_path):
    assert len(SetFolder(tmp_path).nodes) == 0
    texts = planted(families=3, alone=3)
    sets = sets_of(texts)
    nodes = np.random.default_rng(0).permutation(1000)[: len(texts)]
    for name, chosen in (("b", slice(0, 5)), ("a", slice(5, None))):
        some = (unique_shingles([text], 5, "word") for text in texts[chosen])
        write_sets(tmp_path / f"{name}.sets", nodes[chosen], some)
        index_sets(tmp_path)
    folder = SetFolder(tmp_path)
    assert folder.nodes.tolist() == sorted(nodes.tolist())
    for node, expected in zip(nodes.tolist(), sets):
        np.testing.assert_array_equal(folder[node], expected)
