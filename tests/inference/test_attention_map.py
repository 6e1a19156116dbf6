"""The map of cross-attention has the weights of the model's own layers, for every layer and head."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import make_model

from gptjax.config import ConfigError
from gptjax.inference.attention_map import cross_attention, plot_attention
from gptjax.model.attention_layer import Attention
from gptjax.model.encoder_decoder import EncoderDecoder

FIELDS = dict(family="encoder_decoder", num_kv_heads=2, layers="unroll", scale=0.6)
SOURCE, TARGET = [5, 90, 17, 200, 1], [2, 33, 7, 64]


@pytest.fixture(scope="module")
def recomputed():
    """softmax(q kᵀ / sqrt(H)) from the inputs of each layer's cross-attention in a plain forward pass."""
    params, config = make_model(**FIELDS)
    found = []

    def watch(call, args, options, context):
        is_call = isinstance(context.module, Attention) and context.method_name == "__call__"
        if is_call and context.module.name == "cross_attention":
            own = context.module.variables["params"]
            q_TNH = jnp.einsum("td,dnh->tnh", args[0][0], own["query"])
            k_SKH = jnp.einsum("sd,dkh->skh", options["context_BSD"][0], own["key"])
            k_SNH = jnp.repeat(k_SKH, q_TNH.shape[1] // k_SKH.shape[1], axis=1)
            found.append(jnp.einsum("tnh,snh->nts", q_TNH, k_SNH) / q_TNH.shape[-1] ** 0.5)
        return call(*args, **options)

    @jax.jit
    def logits(params):
        with nn.intercept_methods(watch):
            EncoderDecoder(config.model).apply({"params": params}, np.array([SOURCE]), np.array([TARGET]))
        return jnp.stack(found)

    powers_LNTS = np.exp(logits(params))
    return powers_LNTS / powers_LNTS.sum(-1, keepdims=True)


@pytest.mark.parametrize("layers", ["unroll", "scan"])
def test_the_map_equals_the_attention_of_the_model(layers, recomputed):
    params, config = make_model(**FIELDS | dict(layers=layers))
    weights_LNTS = cross_attention(params, config.model, SOURCE, TARGET)
    assert weights_LNTS.shape == (2, 4, len(TARGET), len(SOURCE))
    np.testing.assert_allclose(weights_LNTS.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(weights_LNTS, recomputed, rtol=1e-4, atol=1e-6)
    assert np.abs(weights_LNTS - weights_LNTS.mean(-1, keepdims=True)).max() > 0.1


@pytest.mark.parametrize(
    "family, source, target, message",
    [
        ("decoder", SOURCE, TARGET, "only encoder_decoder"),
        ("encoder_decoder", [3] * 49, TARGET, "source = 49 tokens: must be from 1 to 48"),
        ("encoder_decoder", SOURCE, [], "target = 0 tokens"),
    ],
)
def test_invalid_inputs_are_refused(family, source, target, message):
    params, config = make_model(family=family)
    with pytest.raises(ConfigError, match=message):
        cross_attention(params, config.model, source, target)


def test_a_drawing_has_a_panel_for_each_layer(tmp_path):
    weights_LTS = jax.nn.softmax(np.random.default_rng(0).standard_normal((2, 3, 4)))
    plot_attention(tmp_path / "map.png", weights_LTS, list("abcd"), list("xyz"))
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
