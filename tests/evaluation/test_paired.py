"""The p-values of paired differences are those of no difference where there is none."""

import numpy as np
import pytest

from gptjax.evaluation.paired import paired, weights_of


def test_p_values_are_uniform_without_a_difference_and_small_with_one():
    generator = np.random.default_rng(0)
    drawn = [paired(*generator.normal(size=(2, 50))).p for _ in range(400)]
    assert 0.02 < np.mean(np.array(drawn) < 0.05) < 0.09
    a = generator.normal(size=200)
    assert paired(a, a + generator.normal(0.1, 0.2, 200)).p < 1e-6  # though the runs' own errors are 0.07
    right = (generator.random(300) < 0.5).astype(float)
    better = np.where(generator.random(300) < 0.1, 1.0, right)
    assert paired(right, better).p < 0.01
    assert paired(right, right).p == 1 and paired(right, right).value == 0
    assert paired(a, a).p == 1


def test_p_values_of_weighted_items_are_uniform_without_a_difference():
    generator = np.random.default_rng(0)
    weights = np.repeat([0.5 / 10, 0.5 / 90], [10, 90])
    drawn = [paired(*generator.normal(size=(2, 100)), weights).p for _ in range(400)]
    assert 0.02 < np.mean(np.array(drawn) < 0.05) < 0.1


def test_each_member_has_the_same_weight():
    assert weights_of(["a", "b", "b", "b"]) == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
