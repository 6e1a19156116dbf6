"""8-bit weights compared with the weights that they approximate."""

import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model.int8 import Int8, int8_product, quantize

RNG = np.random.default_rng(0)


def weight_of(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def widened(weight: Int8) -> np.ndarray:
    return np.asarray(weight.values, np.float32) * np.asarray(weight.scale)


@pytest.mark.parametrize(
    "shape, summed_axes", [((16, 9), (0,)), ((16, 3, 4), (0,)), ((3, 4, 16), (0, 1)), ((9, 16), (1,))]
)
def test_no_weight_changes_by_more_than_half_a_step(shape, summed_axes):
    weight = weight_of(*shape)
    low = quantize(weight, summed_axes)
    assert low.values.dtype == jnp.int8
    assert np.all(np.abs(widened(low) - weight) <= low.scale * 0.5001)
    largest = np.max(np.abs(low.values), axis=summed_axes)
    assert np.all(largest == 127)  # each output uses the whole range


def test_an_output_of_zeros_stays_zero():
    low = quantize(jnp.zeros((4, 2)), (0,))
    assert not np.any(widened(low))


def test_a_product_multiplies_the_rounded_numbers():
    x, weight = weight_of(2, 3, 16), quantize(weight_of(16, 9), (0,))
    rows = quantize(x, (-1,))
    np.testing.assert_allclose(int8_product(x, weight), widened(rows) @ widened(weight), rtol=1e-5, atol=1e-5)


def test_a_row_of_large_numbers_does_not_make_the_others_less_precise():
    x = weight_of(1, 2, 64).at[0, 0].mul(1e4)
    weight = weight_of(64, 9)
    error = np.abs(int8_product(x, quantize(weight, (0,)))[0, 1] - x[0, 1] @ weight)
    assert np.max(error) < 0.5


def test_an_embedding_gives_rows_and_its_transpose_is_the_head():
    table = weight_of(9, 16)
    low = quantize(table, (1,))
    np.testing.assert_allclose(low[jnp.asarray([[3, 1]])], widened(low)[[[3, 1]]], rtol=1e-6)
    np.testing.assert_allclose(widened(low.T), widened(low).T)
