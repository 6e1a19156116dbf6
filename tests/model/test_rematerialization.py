"""Every policy has the gradients of `none`, and saves the named results in the named memory; norms and activations save
their arguments alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals  # jax.ad_checkpoint only prints its result
from jax.ad_checkpoint import checkpoint_name

from gptjax.config import ConfigError
from gptjax.model.feedforward import FeedForward
from gptjax.model.norm import make_norm
from gptjax.model.precision import PRODUCT
from gptjax.model.rematerialization import ATTENTION_OUTPUT, LAYER_INPUT, POLICIES, from_arguments, rematerialized
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


@functools.cache
def gradients(remat, in_scan):
    return jax.jit(jax.grad(functools.partial(loss, remat, in_scan), (0, 1)))(*inputs())


@pytest.mark.parametrize("in_scan", [True, False])
@pytest.mark.parametrize("remat", POLICIES)
def test_gradients_equal_those_without_recomputation(remat, in_scan):
    mine, plain = gradients(remat, in_scan), gradients("none", in_scan)
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


def saved_shapes(function, *arguments):
    """Sorted shapes and types of what a function saves for the backward pass, without constants."""
    return sorted((aval.shape, aval.dtype.name) for aval, _ in saved_residuals(function, *arguments) if aval.ndim)


@pytest.mark.parametrize("fields", [{"norm": "layernorm", "bias": "all"}, {"norm": "rmsnorm"}], ids=str)
def test_a_norm_saves_its_arguments_alone(fields, model_config):
    norm, x = make_norm(model_config(**fields)), jnp.ones((2, 3, 16), jnp.bfloat16)
    params = norm.init(jax.random.key(0), x)
    assert set(saved_shapes(norm.apply, params, x)) == {((2, 3, 16), "bfloat16"), ((16,), "float32")}


@pytest.mark.parametrize("name, results", [("gelu", 2), ("relu2", 2), ("swiglu", 3), ("geglu", 3)])
def test_a_feedforward_layer_saves_only_what_its_products_read_and_make(name, results, model_config):
    layer, x = FeedForward(model_config(feedforward=name)), jnp.ones((2, 3, 16), jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    saved = saved_shapes(functools.partial(layer.apply, params), x)
    assert [shape for shape, _ in saved if len(shape) == 3] == [(2, 3, 16)] + [(2, 3, 24)] * results
    assert {dtype for _, dtype in saved} == {"bfloat16"}


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_what_is_computed_again_from_its_arguments_has_the_same_gradients(layers, model_config):
    def function(x, scale):
        return jax.nn.gelu(x) * scale

    x, scale, cotangent = (jnp.linspace(-2, 2, 12).reshape(3, 4), jnp.arange(4.0), jnp.ones((3, 4)))
    mine, plain = (
        jax.jit(lambda *given, function=function: jax.vjp(function, *given)[1](cotangent))(x, scale)
        for function in (from_arguments(function, model_config(layers=layers)), function)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), mine, plain)


@pytest.mark.parametrize(
    "layers, platform, kept", [("unroll", "cuda", True), ("unroll", "cpu", False), ("scan", "cuda", False)]
)
def test_only_a_cpus_compiler_may_merge_both_computations(layers, platform, kept, model_config):
    """In a scan, no compiler can."""
    config = model_config(layers=layers)
    gradient = jax.jit(jax.grad(lambda x: from_arguments(jax.nn.gelu, config)(x).sum()))
    text = gradient.trace(jnp.ones(3)).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in text) == kept


def test_the_config_allows_exactly_the_policies_of_the_table():
    assert allowed_values()["model.remat"].names == ("none", *POLICIES)
    with pytest.raises(ConfigError, match=r"model\.remat = 'half': expected one of none, dots"):
        rematerialized(block, "half")
