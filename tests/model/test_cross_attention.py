"""Attention to another sequence and to both sides: every backend has NumPy's values and JAX's gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.model.attention import attention
from gptjax.model.attention_layer import Attention

T, S = 13, 22
RNG = np.random.default_rng(0)
SEGMENTS_BT = np.stack([np.repeat([1, 2, 3], [5, 2, 6]), np.repeat([1, 2, 0], [1, 9, 3])]).astype(np.int32)
SEGMENTS_BS = np.stack([np.repeat([1, 2, 3], [3, 18, 1]), np.repeat([1, 2, 0], [11, 4, 7])]).astype(np.int32)
LENGTHS_B = np.array([22, 9], np.int32)

# name: keys, options
CASES = {
    "cross": (S, {}),
    "cross_to_fewer": (6, {}),
    "cross_lengths": (S, dict(key_lengths_B=LENGTHS_B)),
    "cross_segments": (S, dict(segments_BT=SEGMENTS_BT, key_segments_BS=SEGMENTS_BS)),
    "both_sides": (T, {}),
    "both_sides_window": (T, dict(window=4)),
    "both_sides_lengths": (T, dict(key_lengths_B=np.array([13, 5], np.int32))),
    "both_sides_segments_window": (T, dict(segments_BT=SEGMENTS_BT, window=3)),
}


def inputs(num_keys, num_heads=4, num_kv_heads=2, dtype=np.float32):
    shapes = ((2, T, num_heads, 8), (2, num_keys, num_kv_heads, 8), (2, num_keys, num_kv_heads, 8))
    return tuple(np.random.default_rng(1).standard_normal(shape).astype(dtype) for shape in shapes)


def mask_of(num_keys, window=0, segments_BT=None, key_segments_BS=None, key_lengths_B=None):
    """Computed by loops over rows, queries and keys."""
    mask = np.ones((2, T, num_keys), bool)
    of_keys = segments_BT if key_segments_BS is None else key_segments_BS
    for b, t, s in np.ndindex(*mask.shape):
        mask[b, t, s] = not (
            (window and abs(t - s) >= window)
            or (segments_BT is not None and segments_BT[b, t] != of_keys[b, s])
            or (key_lengths_B is not None and s >= key_lengths_B[b])
        )
    return mask


def in_numpy(q, k, v, mask):
    out = np.zeros(q.shape)
    for b, n in np.ndindex(2, q.shape[2]):
        queries, keys, values = (np.float64(x[b, :, i]) for x, i in ((q, n), (k, n // 2), (v, n // 2)))
        weights = np.where(mask[b], np.exp(queries @ keys.T / np.sqrt(q.shape[-1])), 0.0)
        out[b, :, n] = weights / weights.sum(-1, keepdims=True) @ values
    return out


def value_and_gradients(backend, q, k, v, **options):
    weights = np.random.default_rng(2).standard_normal(q.shape)

    def loss(q, k, v):
        out = attention(q, k, v, backend=backend, causal=False, block=4, **options)
        return (jnp.sin(out) * weights).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    return out, *gradients


@functools.cache
def of_reference(case):
    num_keys, options = CASES[case]
    return value_and_gradients("reference", *inputs(num_keys), **options)


# Two cases that cover most options; the others run in `make test-exhaustive`.
FEW = ("cross_segments", "both_sides_segments_window")
REST = [pytest.param(case, marks=pytest.mark.exhaustive) for case in CASES if case not in FEW]


@pytest.mark.parametrize("case", CASES)
def test_backends_equal_numpy_and_each_other(case, monkeypatch):
    check_backends(case, 0, monkeypatch)


@pytest.mark.parametrize("case", [*FEW, *REST])
def test_backends_that_save_probabilities_for_the_backward_pass(case, monkeypatch):
    check_backends(case, 256, monkeypatch)


def check_backends(case, kept_positions, monkeypatch):
    monkeypatch.setattr("gptjax.model.attention_backends.KEPT_POSITIONS", kept_positions)
    num_keys, options = CASES[case]
    arrays = inputs(num_keys)
    expected = of_reference(case)
    np.testing.assert_allclose(expected[0], in_numpy(*arrays, mask_of(num_keys, **options)), rtol=1e-4, atol=1e-5)
    for a, b in zip(value_and_gradients("xla", *arrays, **options), expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "xla"])
@pytest.mark.parametrize("case", [*FEW, *REST])
def test_gradients_show_which_keys_a_query_sees(case, backend):
    num_keys, options = CASES[case]
    q, k, v = inputs(num_keys)

    def outputs(v):
        return attention(q, k, v, backend=backend, causal=False, block=4, **options).sum((2, 3))

    influence = np.abs(jax.jit(jax.jacrev(outputs))(v)).max((4, 5))  # [B, T, B, S]
    expected = mask_of(num_keys, **options)
    for row in range(2):
        np.testing.assert_array_equal(influence[row, :, row] > 0, expected[row])
        assert not influence[row, :, 1 - row].any()


def test_both_backends_drop_out_the_same_probabilities():
    q, k, v = inputs(S)
    options = dict(dropout=0.4, dropout_keys_B=jax.random.split(jax.random.key(1), 2), key_lengths_B=LENGTHS_B)
    expected = value_and_gradients("reference", q, k, v, **options)
    for a, b in zip(value_and_gradients("xla", q, k, v, **options), expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.abs(expected[0] - of_reference("cross_lengths")[0]).max() > 0.1


def test_a_layer_attends_from_one_stream_to_another(model_config):
    """Compared with NumPy products of the layer's weights; each stream has its own segments."""
    config = model_config(bias="qkv", attention="xla")
    x, context = RNG.standard_normal((2, T, 16)), RNG.standard_normal((2, S, 16))
    layer = Attention(config, 0, causal=False)
    facts = dict(segments_BT=SEGMENTS_BT, key_segments_BS=SEGMENTS_BS)
    apply = jax.jit(lambda params: layer.apply({"params": params}, x, context_BSD=context, **facts)[0])
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.float32(x))["params"])
    params = jax.tree.map(lambda s: (0.5 * RNG.standard_normal(s.shape)).astype(np.float32), shapes)

    def heads(stream, name):
        return np.einsum("btd,dnh->btnh", stream, params[name]) + params[f"{name}_bias"]

    q, k, v = heads(x, "query"), heads(context, "key"), heads(context, "value")
    expected = np.einsum("btnh,nhd->btd", in_numpy(q, k, v, mask_of(S, **facts)), params["output"])
    np.testing.assert_allclose(apply(params), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", ["causal_window", "cross_lengths", "cross_segments", "both_sides_segments_window"])
def test_the_attention_weights_that_a_layer_stores_reproduce_its_output(case, model_config):
    """Tested with a backend that never computes the whole matrix: the weights times the values are the layer's
    output."""
    num_keys, options = (T, dict(window=4)) if case == "causal_window" else CASES[case]
    window, facts = options.get("window", 0), {name: value for name, value in options.items() if name != "window"}
    x, context = (jnp.asarray(RNG.standard_normal((2, length, 16)), jnp.float32) for length in (T, num_keys))
    if case.startswith("cross"):
        facts["context_BSD"] = context
    else:
        context = x
    layer = Attention(model_config(attention="xla", qk_norm=True), window, causal=case == "causal_window")
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, **facts)["params"])
    params = jax.tree.map(lambda s: RNG.standard_normal(s.shape).astype(np.float32), shapes)

    @jax.jit
    def apply(params):
        (output_BTD, _), seen = layer.apply({"params": params}, x, **facts, mutable=["intermediates"])
        return output_BTD, *seen["intermediates"]["weights"]

    output_BTD, weights_BNTS = map(np.asarray, apply(params))
    values_BSNH = np.repeat(np.einsum("bsd,dkh->bskh", context, params["value"]), 2, axis=2)
    taken_BTNH = np.einsum("bnts,bsnh->btnh", weights_BNTS, values_BSNH)
    np.testing.assert_allclose(
        np.einsum("btnh,nhd->btd", taken_BTNH, params["output"]), output_BTD, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(weights_BNTS.sum(-1), 1.0, rtol=1e-5)


def test_an_encoder_layer_sees_both_sides_and_a_decoder_layer_does_not(model_config):
    config = model_config(attention="xla")
    x = RNG.standard_normal((1, T, 16)).astype(np.float32)
    for causal in (True, False):
        layer = Attention(config, 0, causal=causal)
        shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x)["params"])  # noqa: B023
        params = jax.tree.map(lambda s: RNG.standard_normal(s.shape).astype(np.float32), shapes)
        jacobian = jax.jit(jax.jacrev(lambda x: layer.apply({"params": params}, x)[0][0].sum(-1)))(x)  # noqa: B023
        influence = np.abs(jacobian[:, 0]).max(-1) > 0
        np.testing.assert_array_equal(influence, np.tri(T) if causal else np.ones((T, T)))


def test_contradictory_arguments_are_refused(model_config):
    q, k, v = inputs(S)
    with pytest.raises(ValueError, match="as many keys as queries"):
        attention(q, k, v, backend="reference")
    with pytest.raises(ValueError, match="give both"):
        attention(q, k, v, backend="reference", causal=False, key_segments_BS=SEGMENTS_BS)
    config, x = model_config(), jnp.zeros((2, T, 16))
    for layer, rotation in ((Attention(config, 0), None), (Attention(config, 3, causal=False), None)):
        with pytest.raises(ValueError, match="another stream"):
            layer.init(jax.random.key(0), x, context_BSD=x, rotation=rotation)


@pytest.mark.parametrize(
    "num_keys, options, message",
    [
        (S, dict(segments_BT=SEGMENTS_BT[:, :12], key_segments_BS=SEGMENTS_BS), "packed documents"),
        (7, {}, "must be even, not 7"),
        (12, dict(window=4), "to both sides"),
    ],
)
def test_cudnn_refuses_unsupported_inputs(num_keys, options, message):
    q, k, v = inputs(num_keys, dtype=jnp.bfloat16)
    with pytest.raises(ConfigError, match=message):
        attention(q[:, :12], k, v, backend="cudnn", causal=False, **options)
