"""Each step of experiments/from_scratch/attention.py gives what the model's own functions give."""

import functools

import attention as steps
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model.attention import attend, attention, cached_attention, visible
from gptjax.model.attention_layer import Attention
from gptjax.model.attention_scores import Scores

B, T, N, K, H = 2, 7, 4, 2, 8


@pytest.fixture(scope="module")
def heads():
    """q [B, T, N, H], and k and v [B, T, K, H]."""
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=(B, T, heads, H)), jnp.float32) for heads in (N, K, K)]


def equal(mine, theirs, *arguments):
    """Compares the results of two functions, which are compiled together."""
    both = jax.jit(lambda *arguments: (mine(*arguments), theirs(*arguments)))(*arguments)
    np.testing.assert_allclose(*both, rtol=2e-5, atol=2e-6)


def one_head(x_BTNH):
    return x_BTNH[0, :, 0]


def of_one_head(function):
    """The function for a row and a head that have no axis of their own."""
    return lambda *arrays: one_head(function(*(x_TH[None, :, None] for x_TH in arrays)))


def test_dot_products(heads):
    everything = jnp.ones((1, T, T), bool)
    theirs = of_one_head(lambda x: attend(x, x, x, everything, scores=Scores(scale=1.0)))
    equal(steps.dot_products, theirs, one_head(heads[0]))


def test_scaled(heads):
    everything = jnp.ones((1, T, T), bool)
    equal(steps.scaled, of_one_head(lambda q, k, v: attend(q, k, v, everything)), *map(one_head, heads))


def test_causal(heads):
    rows_1T = jnp.arange(T)[None]
    theirs = of_one_head(lambda q, k, v: attend(q, k, v, visible(rows_1T, rows_1T)[0]))
    equal(steps.causal, theirs, *map(one_head, heads))


def test_multi_head(heads):
    q, k, v = heads
    backends = [functools.partial(attention, backend=backend) for backend in ("reference", "xla")]
    equal(
        lambda *heads: [steps.multi_head(*heads)] * 2, lambda *heads: [f(*heads) for f in backends], q[:, :, :K], k, v
    )


def test_grouped_query(heads):
    equal(steps.grouped_query, functools.partial(attention, backend="reference"), *heads)


def test_cached(heads):
    def mine(q, k, v):
        cache, outputs = steps.empty_cache(B, T + 2, K, H), []
        for start, end in ((0, 4), (4, 5), (5, T)):  # a prompt, one token, two tokens
            out, cache = steps.cached(*(each[:, start:end] for each in (q, k, v)), cache)
            outputs.append(out)
        assert cache.keys_BSKH.shape == (B, T + 2, K, H)
        return [jnp.concatenate(outputs, axis=1)] * 2

    def theirs(q, k, v):
        stored = (jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, 2), (0, 0))) for x in (k, v))
        places_BT = jnp.broadcast_to(jnp.arange(T), (B, T))
        return [cached_attention(q, *stored, positions_BT=places_BT), steps.grouped_query(q, k, v)]

    equal(mine, theirs, *heads)


def test_the_layer(tiny_config):
    config = tiny_config(model__bias="qkv+output", model__position="none").model
    random = np.random.default_rng(1)
    x_BTD = random.normal(size=(B, T, config.width)).astype(np.float32)
    layer = Attention(config, window=0)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x_BTD)["params"]
    params = jax.tree.map(lambda x: random.normal(0.1, 0.1, x.shape).astype(np.float32), shapes)
    equal(steps.attention_layer, lambda p, x: layer.apply({"params": p}, x)[0], params, x_BTD)
