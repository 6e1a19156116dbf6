import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.data.order import TrainingOrder, ValidationOrder, shuffled, turns

SIZES = [1, 2, 3, 5, 63, 64, 65, 66, 81, 100, 1000, 4097]
KEY = np.uint64(7)


def surprise(cells):
    """The chi-square of the counts of equally likely cells, in standard deviations from its mean."""
    cells = np.asarray(cells).ravel()
    freedom = len(cells) - 1
    chi_square = ((cells - cells.mean()) ** 2).sum() / cells.mean()
    return (chi_square - freedom) / math.sqrt(2 * freedom)


def epochs(size, number, places, key=KEY):
    """[epoch, place]: the numbers at some places of many epochs."""
    return shuffled((np.arange(number)[:, None] * size + places).ravel(), size, key).reshape(number, -1)


@pytest.mark.parametrize("size", SIZES)
def test_an_epoch_has_every_number_once(size):
    stream = shuffled(np.arange(5 * size), size, KEY)
    assert stream.dtype == np.int64
    assert (np.sort(stream.reshape(5, size)) == np.arange(size)).all()
    if size >= 63:
        assert len({tuple(epoch) for epoch in stream.reshape(5, size).tolist()}) == 5


@settings(deadline=None)
@given(st.integers(1, 10**12), st.integers(0, 2**64 - 1), st.lists(st.integers(0, 10**15), min_size=1, max_size=9))
def test_places_do_not_depend_on_how_they_are_batched(size, key, places):
    together = shuffled(np.array(places), size, np.uint64(key))
    assert ((0 <= together) & (together < size)).all()
    alone = [int(shuffled(np.array([place]), size, np.uint64(key))[0]) for place in places]
    assert together.tolist() == alone


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_a_few_numbers_are_equally_likely(size):
    codes = epochs(size, 60_000, np.arange(size)) @ (size ** np.arange(size))
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == math.factorial(size) and abs(surprise(counts)) < 4


@pytest.mark.parametrize("size", [7, 64, 65, 81, 100, 101])
def test_orders_are_distributed_like_random_permutations(size):
    """Tests places, pairs in an epoch and pairs across epochs; with 6 rounds or short halves, the pairs would fail."""
    number = 100_000
    places = np.array([0, 1, size // 2, size - 1])
    found = epochs(size, number, places)
    for column in found.T:
        assert abs(surprise(np.bincount(column, minlength=size))) < 4.5
    for a, b in itertools.combinations(found.T, 2):
        pairs = np.bincount(a * size + b, minlength=size * size).reshape(size, size)
        assert not np.diag(pairs).any()
        assert abs(surprise(pairs[~np.eye(size, dtype=bool)])) < 4.5
        steps = np.bincount((b - a) % size, minlength=size)
        assert abs(surprise(steps[1:])) < 4.5
    for a, b in itertools.product(found[1:].T, found[:-1].T):
        assert abs(surprise(np.bincount((b - a) % size, minlength=size))) < 4.5


@pytest.mark.parametrize("size", [5, 100, 10**6])
def test_the_first_numbers_of_seeds_are_uniform(size):
    begins = [TrainingOrder([size], [1.0], seed)(np.array([0, 1]))[1] for seed in range(3000)]
    cells = np.array(begins) * 5 // size
    for column in cells.T:
        assert abs(surprise(np.bincount(column, minlength=5))) < 4.5
    if size == 10**6:
        assert abs(surprise(np.bincount(cells @ [5, 1], minlength=25))) < 4.5
        neighbours = np.diff(np.array(begins)[:, 0]) % size * 5 // size
        assert abs(surprise(np.bincount(neighbours, minlength=5))) < 4.5


def test_fixed_points_and_ascents_are_as_in_random_permutations():
    """In a random permutation one number stays in place on average, and half of all neighbours ascend."""
    size = 1000
    found = epochs(size, 300, np.arange(size))
    assert abs((found == np.arange(size)).sum() / 300 - 1) < 0.25
    assert abs((np.diff(found) > 0).mean() - 0.5) < 0.005
    common = (found[1:] == found[:-1]).sum() / 299
    assert abs(common - 1) < 0.25


def test_orders_do_not_change():
    """Saved runs continue with these numbers; if they change, VERSION must change, too."""
    assert shuffled(np.arange(6), 6, KEY).tolist() == [1, 5, 0, 4, 3, 2]
    assert shuffled(np.array([0, 1, 2, 999, 1000, 10**15]), 1000, KEY).tolist() == [24, 310, 55, 295, 933, 300]
    source, window = TrainingOrder([1000, 70, 5], [0.6, 0.3, 0.1], 3)(np.arange(10))
    assert list(zip(source.tolist(), window.tolist())) == [
        (0, 350),
        (0, 368),
        (1, 37),
        (0, 10),
        (1, 43),
        (0, 530),
        (0, 77),
        (1, 61),
        (0, 224),
        (2, 4),
    ]


def share_left(counts):
    """[turn, source]: by how much a source is ahead of its share after each turn."""
    order, _ = turns(np.array(counts))
    had = np.cumsum(order[:, None] == np.arange(len(counts)), axis=0)
    return had - np.arange(1, len(order) + 1)[:, None] * (np.array(counts) / len(order))


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_turns_keep_every_source_within_one_of_its_share(counts):
    left = share_left(counts)
    assert np.abs(left).max() < 1 and np.abs(left[-1]).max() < 1e-9
    order, rank = turns(np.array(counts))
    for source, count in enumerate(counts):
        assert rank[order == source].tolist() == list(range(count))


def test_one_large_and_many_small_sources_keep_their_shares():
    """If the source furthest behind always went first, the large one would fall behind."""
    assert np.abs(share_left([900] + [10] * 10)).max() < 1


@pytest.mark.parametrize("weights", [[3, 1], [0.7, 0.2, 0.1], [2e-7, 5.0, 1 / 3], [1] * 7])
def test_a_mixture_gives_each_source_its_weight_and_its_epochs(weights):
    sizes = [11, 5, 130, 64, 65, 7, 2][: len(weights)]
    order = TrainingOrder(sizes, weights, seed=1)
    assert sum(order.weights) == pytest.approx(1) and min(order.weights) > 0
    np.testing.assert_allclose(order.weights, np.array(weights) / sum(weights), atol=2e-5)
    places = np.arange(200_000)
    source, window = order(places)
    for number, (size, weight) in enumerate(zip(sizes, order.weights)):
        taken = np.cumsum(source == number)
        assert np.abs(taken - (places + 1) * weight).max() < 1
        mine = window[source == number]
        whole = mine[: len(mine) // size * size].reshape(-1, size)
        assert (np.sort(whole) == np.arange(size)).all()
    some = np.array([170_000, 3, 99_999])
    assert [part.tolist() for part in order(some)] == [source[some].tolist(), window[some].tolist()]


def test_sources_of_equal_size_have_different_orders():
    source, window = TrainingOrder([50, 50], [1, 1], seed=4)(np.arange(100))
    assert window[source == 0].tolist() != window[source == 1].tolist()


def test_a_single_source_has_the_order_of_the_first_source_in_a_mixture():
    source, window = TrainingOrder([50, 9], [1, 1], seed=4)(np.arange(100))
    assert window[source == 0].tolist() == TrainingOrder([50], [1], seed=4)(np.arange(50))[1].tolist()


def test_validation_has_all_of_each_source_in_one_shuffled_order():
    sizes = [90, 1, 40]
    order = ValidationOrder(sizes)
    source, window = order(np.arange(131))
    for number, size in enumerate(sizes):
        assert sorted(window[source == number].tolist()) == list(range(size))
    assert 4 < np.count_nonzero(source[:40] == 2) < 22, "the first batches are a sample of the whole"
    assert order.weights == [90 / 131, 1 / 131, 40 / 131]
