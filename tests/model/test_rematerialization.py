"""Every policy has the gradients of `none`, and saves the named results in the named memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals  # jax.ad_checkpoint only prints its result
from jax.ad_checkpoint import checkpoint_name

from gptjax.config import ConfigError
from gptjax.model.precision import PRODUCT
from gptjax.model.rematerialization import ATTENTION_OUTPUT, LAYER_INPUT, POLICIES, rematerialized
from gptjax.settings import allowed_values

NAMES = (LAYER_INPUT, PRODUCT, ATTENTION_OUTPUT)


def block(weight, x):
    """Each named result has its own width; unnamed results have the width of the product."""
    x = checkpoint_name(x, LAYER_INPUT)
    product = checkpoint_name(jnp.sin(x) @ weight["up"], PRODUCT)
    attention = checkpoint_name(jnp.sin(product) @ weight["over"], ATTENTION_OUTPUT)
    return x + jnp.sin(attention) @ weight["down"]


def loss(remat, in_scan, weights, x):
    one = rematerialized(block, remat, in_scan)
    if in_scan:
        return jnp.sum(jax.lax.scan(lambda x, weight: (one(weight, x), None), x, weights)[0] ** 2)
    for layer in range(3):
        x = one(jax.tree.map(lambda w, layer=layer: w[layer], weights), x)
    return jnp.sum(x**2)


def inputs():
    shapes = {"up": (3, 8, 16), "over": (3, 16, 4), "down": (3, 4, 8)}
    rng = np.random.default_rng(0)
    weights = {name: jnp.asarray(rng.standard_normal(shape) / 4, jnp.float32) for name, shape in shapes.items()}
    return weights, jnp.asarray(rng.standard_normal((2, 8)), jnp.float32)


@pytest.mark.parametrize("in_scan", [True, False])
@pytest.mark.parametrize("remat", POLICIES)
def test_gradients_equal_those_without_recomputation(remat, in_scan):
    mine, plain = (
        jax.jit(jax.grad(functools.partial(loss, name, in_scan), (0, 1)))(*inputs()) for name in (remat, "none")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), mine, plain)


@pytest.mark.parametrize("remat", POLICIES)
def test_a_policy_saves_the_named_results_in_the_named_memory(remat):
    weights, x = inputs()
    one = rematerialized(block, remat)
    first = jax.tree.map(lambda w: w[0], weights)
    kept = [
        aval for aval, source in saved_residuals(one, first, x) if aval.shape not in {w.shape for w in first.values()}
    ]
    widths = {LAYER_INPUT: 8, PRODUCT: 16, ATTENTION_OUTPUT: 4}
    on_host = {aval.shape[1] for aval in kept if aval.memory_space == jax.memory.Space.Host}
    on_device = {aval.shape[1] for aval in kept} - on_host
    policy = POLICIES[remat]
    assert on_host == {widths[name] for name in policy.host}
    always = set() if LAYER_INPUT in policy.host else {LAYER_INPUT}
    assert on_device == {widths[name] for name in {*policy.device, *always}}


def test_the_config_allows_exactly_the_policies_of_the_table():
    assert allowed_values()["model.remat"].names == ("none", *POLICIES)
    with pytest.raises(ConfigError, match=r"model\.remat = 'half': expected one of none, dots"):
        rematerialized(block, "half")
