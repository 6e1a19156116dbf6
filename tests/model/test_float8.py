"""Products of 8-bit floats against NumPy with the 8-bit types of ml_dtypes."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gptjax.model.float8 import GRADIENT, OPERAND, rounded
from gptjax.model.precision import project

RNG = np.random.default_rng(0)


def rounded_in_numpy(x, dtype):
    """Rounds x / s to the type and multiplies by s, the smallest power of two for which every number fits."""
    x = np.asarray(x, np.float64)
    largest = float(ml_dtypes.finfo(dtype).max)
    scale = 2.0 ** np.floor(np.log2(np.abs(x).max() / largest) + 1) if x.any() else 1.0
    return (x / scale).astype(dtype).astype(np.float64) * scale


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e8])
def test_a_product_and_its_gradients_use_rounded_operands(dtype, size):
    x = jnp.asarray(RNG.standard_normal((2, 3, 32)) * size, dtype)
    weight, cotangent = (jnp.asarray(RNG.standard_normal(shape), dtype) for shape in ((32, 2, 16), (2, 3, 32)))
    y, pullback = jax.vjp(lambda x, weight: project(x, weight, matmul="fp8"), x, weight)
    x8, weight8 = rounded_in_numpy(x, OPERAND), rounded_in_numpy(weight, OPERAND).reshape(32, 32)
    gradient8 = rounded_in_numpy(cotangent, GRADIENT)
    expected = x8 @ weight8, gradient8 @ weight8.T, np.einsum("BTI,BTO->IO", x8, gradient8).reshape(weight.shape)
    for made, wanted in zip((y, *pullback(cotangent)), expected):
        assert made.dtype == dtype and made.shape == wanted.shape
        relative = np.linalg.norm(np.asarray(made, np.float64) - wanted) / np.linalg.norm(wanted)
        assert relative < (1e-6 if dtype == "float32" else 4e-3)  # only the result is rounded to its type


def test_rounding_keeps_zeros_largest_numbers_and_non_finite_numbers():
    assert not np.asarray(rounded(jnp.zeros(3), OPERAND).widened("float32")).any()
    for number in (448.0, 449.0, 3e38, 1e-30):
        x8 = rounded(jnp.array([number, -number / 3]), OPERAND)
        np.testing.assert_allclose(x8.widened("float32"), [number, -number / 3], rtol=2**-4)
        assert np.frexp(float(x8.scale))[0] == 0.5  # a power of two
    for dtype in (OPERAND, GRADIENT):
        for number in (np.nan, np.inf):
            assert not np.isfinite(rounded(jnp.array([number, 1.0]), dtype).widened("float32")[0])


def test_the_backward_pass_saves_operands_in_8_bits():
    x, weight = jnp.ones((1, 2, 32), jnp.bfloat16), jnp.ones((32, 16), jnp.bfloat16)
    _, pullback = jax.vjp(lambda x, weight: project(x, weight, matmul="fp8"), x, weight)
    assert {leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback) if leaf.size > 1} == {1}
