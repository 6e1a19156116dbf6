import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.corpus.duplicates.find import components
from gptjax.corpus.duplicates.join import Groups, candidate_edges, equal_keys, linear_edges, pack, unpack
from gptjax.corpus.duplicates.nodes import precedence
from gptjax.data.splitmix import mix

ALL_IN_MEMORY = 1 << 30


def groups_of(chunks, total, folder, memory):
    """{sorted members of each group}, and the number of parts."""
    found, parts = [], 0
    for members, starts in equal_keys(chunks, total, folder, memory):
        found += [tuple(group.tolist()) for group in np.split(members, starts[1:]) if len(group)]
        parts += 1
    return sorted(found), parts


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=80), st.integers(1, 5), st.sampled_from([ALL_IN_MEMORY, 400]))
def test_groups_equal_those_of_a_dictionary(tmp_path_factory, values, chunk, memory):
    folder = tmp_path_factory.mktemp("spill")
    keys = mix(np.array(values, np.uint64))
    nodes = np.random.default_rng(0).permutation(len(values)).astype(np.uint32)
    by_key = {}
    for value, node in zip(values, nodes.tolist()):
        by_key.setdefault(value, []).append(node)
    chunks = [(keys[i : i + chunk], nodes[i : i + chunk]) for i in range(0, len(keys), chunk)]
    found, parts = groups_of(chunks, len(keys), folder, memory)
    assert found == sorted(tuple(sorted(group)) for group in by_key.values() if len(group) > 1)
    assert parts == max(1, -(-len(keys) * 40 // memory))
    assert not list(folder.iterdir())


def test_a_hot_bucket_of_50000_makes_a_linear_number_of_edges(tmp_path):
    keys = mix(np.arange(60_000, dtype=np.uint64))
    keys[:50_000] = 7
    nodes = np.random.default_rng(0).permutation(60_000).astype(np.uint32)
    for memory in (ALL_IN_MEMORY, 1 << 20):
        edges = candidate_edges(
            group for _ in range(3) for group in equal_keys([(keys, nodes)], 60_000, tmp_path, memory)
        )
        assert len(edges) < 100_000
        cluster = components(edges, 60_000)
        assert len(np.unique(cluster[nodes[:50_000]])) == 1 and cluster[nodes[0]] == nodes[:50_000].min()
        np.testing.assert_array_equal(cluster[nodes[50_000:]], nodes[50_000:])


def test_groups_in_files_are_those_that_were_written(tmp_path):
    groups = Groups(tmp_path, "some")
    assert list(groups) == []
    parts = [([1, 4, 9, 0, 5], [0, 3]), ([], []), ([7, 8], [0])]
    for members, starts in parts:
        groups.append(np.array(members, np.uint32), np.array(starts, np.int64))
    for _ in range(2):
        assert [(members.tolist(), starts.tolist()) for members, starts in groups] == parts


def test_edges_are_a_star_and_a_chain_without_repetition():
    members, starts = np.array([1, 4, 9, 11, 0, 5], np.uint32), np.array([0, 4])
    edges = np.stack(unpack(linear_edges(members, starts)), axis=1).tolist()
    assert edges == [[0, 5], [1, 4], [1, 9], [1, 11], [4, 9], [9, 11]]
    assert linear_edges(np.zeros(0, np.uint32), np.zeros(0, np.int64)).tolist() == []


def test_edges_of_all_bands_are_united():
    keys = np.array([1, 1, 2, 3], np.uint64)
    nodes = np.arange(4, dtype=np.uint32)
    bands = (keys, keys[::-1], keys)
    edges = candidate_edges(group for band in bands for group in equal_keys([(band, nodes)], 4, None, ALL_IN_MEMORY))
    assert edges.tolist() == pack(np.array([0, 2]), np.array([1, 3])).tolist()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_components_are_named_after_their_smallest_node(pairs):
    expected = list(range(20))
    for _ in range(20):  # the smallest number among neighbours, until nothing changes
        for i, j in pairs:
            expected[i] = expected[j] = min(expected[i], expected[j])
    pairs = np.array(pairs, np.uint32).reshape(-1, 2)
    assert components(pack(*pairs.T), 20).tolist() == expected


@pytest.mark.parametrize(
    "better, worse",
    [
        ((0, 9, 1, 9), (1, 0, 5, 0)),  # kept earlier
        ((1, 0, 1, 9), (1, 1, 5, 0)),  # a source that comes first
        ((1, 0, 5, 9), (1, 0, 4, 0)),  # longer
        ((1, 0, 5, 1), (1, 0, 5, 2)),  # smaller id
    ],
)
def test_precedence_within_a_cluster(better, worse):
    columns = [np.array(column) for column in zip(worse, better)]
    assert precedence(*columns).tolist() == [1, 0]
