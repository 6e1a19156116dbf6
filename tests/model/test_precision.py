"""Products with gradients of their own against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model.precision import einsum_float32, project

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


# The cotangent of the output is wider than x, narrower, and as wide.
@pytest.mark.parametrize("subscripts, x, weight", [
    ("BTI,IO->BTO", (2, 3, 4), (4, 7)),
    ("BTI,IO->BTO", (2, 3, 7), (7, 4)),
    ("BTD,DNH->BTNH", (2, 3, 6), (6, 2, 3)),
    ("BTNH,NHD->BTD", (2, 3, 2, 4), (2, 4, 5)),
])  # fmt: skip
def test_project_is_einsum_with_its_gradients(subscripts, x, weight):
    x, weight = normal(*x), normal(*weight)
    value, pullback = jax.vjp(lambda x, weight: project(subscripts, x, weight), x, weight)
    expected, expected_pullback = jax.vjp(lambda x, weight: jnp.einsum(subscripts, x, weight), x, weight)
    np.testing.assert_array_equal(value, expected)
    cotangent = normal(*value.shape)
    for gradient, wanted in zip(pullback(cotangent), expected_pullback(cotangent)):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-5)


def test_the_weight_gradient_takes_the_activations_first():
    x, weight = normal(1, 2, 8), normal(8, 16)
    gradient = jax.make_jaxpr(jax.grad(lambda weight: project("BTI,IO->BTO", x, weight).sum()))(weight)
    dots = [equation for equation in gradient.eqns if equation.primitive.name == "dot_general"]
    assert dots[-1].invars[0].aval.shape == x.shape


def test_einsum_float32_gives_gradients_of_its_operands_type():
    x, weight = normal(2, 3, 4).astype(jnp.bfloat16), normal(4, 5).astype(jnp.bfloat16)
    value, pullback = jax.vjp(lambda x, w: einsum_float32("BTD,DV->BTV", x, w), x, weight)
    assert value.dtype == jnp.float32
    assert {g.dtype for g in pullback(jnp.ones_like(value))} == {jnp.dtype(jnp.bfloat16)}
