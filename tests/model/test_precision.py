"""Products with explicit gradients, compared with JAX's own gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_products import library_products

from gptjax.model.int8 import quantize
from gptjax.model.precision import einsum, einsum_float32, over_rows, project, project_float32

RNG = np.random.default_rng(0)
DTYPES = ("float32", "bfloat16")


def normal(*shape, dtype="float32"):
    return jnp.asarray(RNG.standard_normal(shape), dtype)


# The cotangent of the output is wider than x, narrower or equally wide; inputs and outputs have one axis or two.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs, weight", [(4, (4, 7)), (7, (7, 4)), (6, (6, 2, 3)), (8, (2, 4, 5))])
def test_project_has_the_values_and_gradients_of_a_product(inputs, weight, dtype):
    def reference(x, weight, bias):
        return jnp.einsum("BTI,IO->BTO", x, weight.reshape(inputs, -1)) + bias.reshape(-1)

    outputs = np.prod(weight) // inputs
    operands = [normal(2, 3, inputs, dtype=dtype), normal(*weight, dtype=dtype), normal(outputs, dtype=dtype)]
    value, pullback = jax.vjp(project, *operands)
    expected, expected_pullback = jax.vjp(reference, *(operand.astype(jnp.float32) for operand in operands))
    assert value.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(value.astype(jnp.float32), expected, rtol=tolerance, atol=tolerance)
    cotangent = normal(*value.shape, dtype=dtype)
    gradients = zip(pullback(cotangent), expected_pullback(cotangent.astype(jnp.float32)), operands)
    for gradient, wanted, operand in gradients:
        assert gradient.dtype == operand.dtype and gradient.shape == operand.shape
        np.testing.assert_allclose(gradient.astype(jnp.float32), wanted, rtol=tolerance, atol=tolerance)


def test_the_weight_gradient_takes_the_activations_first():
    x, weight = normal(1, 2, 8), normal(8, 16)
    program = jax.jit(jax.grad(lambda weight: project(x, weight).sum())).lower(weight).as_text()
    (first,) = re.findall(r"dot_general .*: \(tensor<(\w+)xf32>, .*\) -> tensor<8x16xf32>", program)
    assert first == "1x2x8"


def test_einsum_float32_has_gradients_in_the_type_of_its_operands():
    x, weight = normal(2, 3, 4, dtype="bfloat16"), normal(4, 5, dtype="bfloat16")
    value, pullback = jax.vjp(lambda x, w: einsum_float32("BTD,DV->BTV", x, w), x, weight)
    assert value.dtype == jnp.float32
    assert {g.dtype for g in pullback(jnp.ones_like(value))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("product", [einsum, einsum_float32])
def test_the_products_of_attention_have_the_gradients_of_einsum(product):
    q, k = normal(2, 5, 2, 3, 4), normal(2, 7, 2, 4)
    subscripts = "BTKGH,BSKH->BKTGS"
    _, pullback = jax.vjp(functools.partial(product, subscripts), q, k)
    value, expected = jax.vjp(functools.partial(jnp.einsum, subscripts), q, k)
    for gradient, wanted in zip(pullback(value), expected(value)):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-5)


def test_on_a_cpu_bfloat16_operands_are_not_converted_before_products():
    """The program must not widen operands to float32 first, which is two to ten times slower."""
    x, weight, bias = normal(4, 32, 64, dtype="bfloat16"), normal(64, 128), normal(128)

    def loss(x, weight, bias):
        return jnp.square(project(x, weight, bias).astype(jnp.float32)).sum()

    products = library_products(jax.grad(loss, (0, 1, 2)), x, weight, bias)
    assert products == ["bf16 bf16 -> f32"] * 4  # forward, x, weight, bias
    one_row = library_products(project, x[:1, :1], weight.astype(jnp.bfloat16))
    assert one_row == ["bf16 bf16 -> f32"]
    eight_bits = library_products(project, normal(1, 1, 64), quantize(weight, (0,)))
    assert eight_bits == ["s8 s8 -> s32"]


@pytest.mark.parametrize("shape", [(1, 1, 16), (2, 5, 16)])
def test_a_narrower_weight_rounds_only_its_operand(shape):
    x, weight = normal(*shape), normal(16, 9)
    narrow = weight.astype(jnp.bfloat16)
    expected = x.astype(jnp.bfloat16).astype(jnp.float32) @ narrow.astype(jnp.float32)
    assert project(x, narrow).dtype == jnp.float32
    np.testing.assert_allclose(project(x, narrow), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(project_float32(x, narrow), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_over_rows_is_a_broadcast(shape, dtype):
    vector, cotangent = normal(5, dtype=dtype), normal(*shape, dtype=dtype)
    value, pullback = jax.vjp(lambda vector: over_rows(vector, shape), vector)
    np.testing.assert_array_equal(value, jnp.broadcast_to(vector, shape))
    (gradient,) = pullback(cotangent)
    expected = cotangent.astype(jnp.float32).sum(tuple(range(len(shape) - 1)))
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, rtol=1e-2 if dtype == "bfloat16" else 1e-5)
