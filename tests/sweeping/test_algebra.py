"""The algebra of sweeps obeys its laws, and names do not depend on the rest of the sweep."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.config import ConfigError
from gptjax.sweeping import Point, chain, choice, grid, log_uniform, named, over, random_subset, seeds, zipped

WIDTH, RATE, NAME = "model.width", "optimizer.learning_rate", "optimizer.name"
widths = st.lists(st.integers(1, 4096), max_size=4, unique=True).map(lambda values: over(WIDTH, values))
rates = st.lists(st.floats(1e-6, 1.0), max_size=4, unique=True).map(lambda values: over(RATE, values))
some_seeds = st.integers(0, 4).map(seeds)


@given(widths, rates, some_seeds)
@settings(deadline=None)
def test_a_grid_has_every_combination_once(a, b, c):
    points = grid(a, b, c)
    assert len(points) == len(a) * len(b) * len(c)
    assert points == grid(grid(a, b), c) == grid(a, grid(b, c))
    assert len({point.name for point in points}) == len(points)
    assert all(list(point.settings) == [WIDTH, RATE, "seed"] for point in points)
    assert points == [x + y + z for x in a for y in b for z in c]


@given(widths, widths, rates)
@settings(deadline=None)
def test_chains_drop_repeated_points_and_grids_distribute_over_them(a, b, c):
    assert chain(a, b, a) == chain(a, b) == chain(chain(a), chain(b))
    assert chain(a) == a and chain() == []
    distributed = chain(grid(a, c), grid(b, c))
    assert grid(chain(a, b), c) == distributed


@given(st.integers(0, 6))
def test_zipped_joins_points_by_position(n):
    points = zipped(over(WIDTH, range(64, 64 + n)), seeds(n))
    assert [point.settings for point in points] == [{WIDTH: 64 + i, "seed": i} for i in range(n)]


def test_zipped_needs_equal_lengths_and_a_point_sets_a_field_once():
    with pytest.raises(ConfigError, match="equally long, not 2, 3"):
        zipped(seeds(2), over(WIDTH, [1, 2, 3]))
    with pytest.raises(ConfigError, match="seed is set twice in one point, to 0 and 5"):
        grid(seeds(1), seeds(1, first=5))


def test_the_empty_grid_is_one_point_without_settings():
    assert grid() == [Point()] and grid([], seeds(3)) == []


@given(st.integers(0, 30), st.integers(0, 10), st.integers(0, 100))
def test_a_larger_sample_contains_the_smaller_one(count, more, seed):
    points = over(WIDTH, range(1, 21))
    drawn = random_subset(points, count, seed)
    assert len(drawn) == min(count, 20) and drawn == [point for point in points if point in drawn]
    assert all(point in random_subset(points, count + more, seed) for point in drawn)


@given(st.floats(1e-8, 1.0), st.floats(1.01, 1e6), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_log_uniform_stays_in_its_range_and_grows_at_its_end(low, ratio, count, seed):
    high = low * ratio
    values = [point.settings[RATE] for point in log_uniform(RATE, low, high, count, seed)]
    assert len(values) == count and all(low <= value <= high for value in values)
    assert values == [point.settings[RATE] for point in log_uniform(RATE, low, high, count + 7, seed)][:count]


def test_log_uniform_is_uniform_in_the_logarithm_with_few_digits():
    points = log_uniform(RATE, 1e-5, 1e-1, count=4000, seed=1)
    logarithms = [math.log10(point.settings[RATE]) for point in points]
    for decade in range(-5, -1):
        assert abs(sum(decade <= value < decade + 1 for value in logarithms) / 4000 - 0.25) < 0.03
    assert all(len(f"{point.settings[RATE]:.3g}") >= len(f"{point.settings[RATE]:g}") for point in points)
    assert points != log_uniform(RATE, 1e-5, 1e-1, count=4000, seed=2)
    for limits in ((0.0, 1.0), (1.0, 0.1), (1e-3, math.inf)):
        with pytest.raises(ConfigError, match="0 < low < high"):
            log_uniform(RATE, *limits, count=1, seed=0)


def test_choices_are_fair_and_independent_of_another_field():
    names = [point.settings[NAME] for point in choice(NAME, ["adamw", "muon"], count=2000, seed=0)]
    shapes = [point.settings["schedule.name"] for point in choice("schedule.name", ["wsd", "cosine"], 2000, seed=0)]
    assert abs(names.count("muon") / 2000 - 0.5) < 0.05
    together = sum(name == "muon" and shape == "cosine" for name, shape in zip(names, shapes))
    assert abs(together / 2000 - 0.25) < 0.05


def test_names_are_short_exact_and_in_order():
    point = grid(over(RATE, [3e-4]), over(NAME, ["muon"]), over("schedule.name", ["wsd"]), seeds(1, first=7))[0]
    assert point.name == "learning_rate=0.0003,optimizer.name=muon,schedule.name=wsd,seed=7"
    assert [p.name for p in named({"wide": {WIDTH: 512, "model.num_heads": 8}})] == ["wide"]
    assert over(RATE, [0.1 + 0.2])[0].name == "learning_rate=0.30000000000000004"


@pytest.mark.parametrize(
    "make", [lambda f: over(f, [1]), lambda f: named({"a": {f: 1}}), lambda f: choice(f, [1], 1, 0)]
)
def test_an_unknown_field_is_refused_with_the_closest_one(make):
    with pytest.raises(ConfigError, match=r"unknown field model.wdith; did you mean model.width\?"):
        make("model.wdith")
